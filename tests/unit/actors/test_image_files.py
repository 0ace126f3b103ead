"""Formats, and metadata that are odd, broken or huge: they must not cost the picture."""

import re
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from pictures import (
    ORIENTATION_TAG,
    bomb,
    chunk,
    encoded,
    exif_of,
    gradient,
    heic,
    png_of,
    text_bomb,
    with_chunks,
)
from PIL import Image, TiffImagePlugin

from actors import images
from actors.images import UnusableImage, files

ROTATED = (ORIENTATION_TAG, 3, 1, b"\6")  # a quarter turn clockwise
RED, BLUE = (255, 0, 0), (0, 0, 255)


def halves(width: int = 120, height: int = 60) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width // 2, height))
    return image


def is_upright(data: bytes) -> bool:
    """Whether `halves`, turned clockwise, has its red half above the blue one."""
    image = images.decode(data)
    upper, lower = image.getpixel((30, 20)), image.getpixel((30, 100 % image.height))
    return image.size == (60, 120) and upper[0] > 200 > 60 > upper[2] and lower[2] > 200 > 60 > lower[0]


def test_every_suffix_of_a_readable_format_is_listed():
    images.decode(encoded(gradient()))  # loads the plugins
    kinds = (*files.FORMATS, "MPO", "DIB")
    known = Image.registered_extensions().items()
    assert {suffix[1:] for suffix, kind in known if kind in kinds} == set(files.SUFFIXES)
    assert {"heic", "heif", "hif", "jpg"} < files.SUFFIXES


def test_heic_is_read_upright_within_the_limit():
    data = heic(halves(), quality=95, exif=exif_of(ROTATED))
    assert is_upright(data)
    assert images.read(data, max_pixels=7200).width_px == 60
    with pytest.raises(UnusableImage, match="7,199 pixels"):
        images.decode(data, max_pixels=7199)


def test_heic_with_a_false_size_is_refused():
    data = heic(halves(1200, 600))
    size = data.index(b"ispe") + 8
    with pytest.raises(UnusableImage):
        images.decode(data[:size] + struct.pack(">II", 10, 10) + data[size + 8 :], max_pixels=10_000)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "odd",
    [
        (0x0128, 4, 1, b"\2"),  # resolution unit of the type LONG
        (0x011A, 2, 3, b"72"),  # resolution as text
        (0x011A, 1, 1, b"H"),  # as a byte
        (0x011A, 5, 1, b"\xff\xff\xff\x7f"),  # outside the file
        (0x010F, 2, 99, b"\xff\xff\0\0"),  # the maker's name outside the file
        (0x010F, 77, 1, b"abcd"),  # an unknown type
        (0x8769, 4, 1, b"\xff\xff\xff\xff"),  # a folder outside the file
    ],
)
def test_odd_exif_tag_hides_no_other_tag(form, odd):
    unit = () if odd[0] == 0x0128 else ((0x0128, 3, 1, b"\2"),)
    entries = sorted([odd, ROTATED, *unit])
    assert is_upright(encoded(halves(), form, exif=exif_of(*entries)))


@pytest.mark.parametrize("kind", [1, 3, 4, 9])
def test_orientation_may_have_any_integer_type(kind):
    assert is_upright(encoded(halves(), exif=exif_of((ORIENTATION_TAG, kind, 1, b"\6"))))


@pytest.mark.parametrize("value", [b"\0", b"\1", b"\x09", b"\xff\xff"])
def test_orientation_without_meaning_turns_nothing(value):
    assert images.decode(encoded(halves(), exif=exif_of((ORIENTATION_TAG, 3, 1, value)))).size == (120, 60)


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0junk", exif_of(ROTATED)[:20]])
def test_broken_exif_turns_nothing(exif):
    assert images.decode(encoded(halves(), exif=exif)).size == (120, 60)


def test_orientation_is_found_in_xmp_too():
    xmp = b'<x tiff:Orientation="6"/>'
    assert is_upright(encoded(halves(), xmp=xmp))
    text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    assert is_upright(with_chunks(encoded(halves(), "PNG"), text))


def test_broken_exif_does_not_cost_an_avif():
    data = encoded(halves(), "AVIF", exif=exif_of(ROTATED))
    assert is_upright(data)
    assert images.decode(data.replace(b"II*\0", b"junk")).size == (60, 120)


@pytest.mark.parametrize(("kind", "value"), [(2, "text"), (3, (1, 2)), (4, 7)])
def test_xmp_of_an_odd_type_does_not_cost_a_tiff(kind, value):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[700] = kind
    tags[700] = value
    assert images.decode(encoded(halves(), "TIFF", tiffinfo=tags)).size == (120, 60)


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"tEXt", b"a\0" + b"x" * 2_000_000),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 2_000_000)),
        chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"x" * 2_000_000)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(20_000_000))),
        chunk(b"zTXt", b"a\0\7"),
        chunk(b"gAMA", b"\0\0\0\1", checksum=1),
        chunk(b"tEXt", b"a\0b", checksum=1),
        chunk(b"gAMA", b"") + chunk(b"pHYs", b"") + chunk(b"cHRM", b"\0") + chunk(b"sRGB", b""),
        chunk(b"iCCP", b"") + chunk(b"iCCP", b"a\0\5x") + chunk(b"iCCP", b"a\0\0x"),
        chunk(b"acTL", b"\0") + chunk(b"fcTL", b""),
        chunk(b"tRNS", b"\0"),
        chunk(b"eXIf", b"junk"),
    ],
)
def test_ancillary_chunk_does_not_cost_a_png(extra):
    png = encoded(halves(), "PNG")
    expected = images.decode(png)
    assert np.array_equal(images.decode(with_chunks(png, extra)), expected)
    assert np.array_equal(images.decode(png[:-12] + extra + png[-12:]), expected)


def test_texts_of_a_png_take_no_memory():
    bombs = [chunk(b"zTXt", b"Raw profile type exif\0" + text_bomb()), chunk(b"iCCP", b"a\0" + text_bomb())]
    data = with_chunks(encoded(halves(), "PNG"), *bombs * 20)
    tracemalloc.start()
    assert images.decode(data).size == (120, 60)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_wrong_checksum_of_a_critical_chunk_is_refused():
    png = encoded(halves(), "PNG")
    with pytest.raises(UnusableImage):
        images.decode(png[:29] + b"1234" + png[33:])


def test_limit_of_the_caller_holds_instead_of_pillows(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert images.decode(encoded(gradient(100, 100)), max_pixels=10_000).size == (100, 100)
    with pytest.raises(
        UnusableImage, match=re.escape("100 x 101 px are more than the allowed 10,000 pixels")
    ):
        images.decode(encoded(gradient(100, 101)), max_pixels=10_000)
    with pytest.raises(UnusableImage, match=re.escape("more than the allowed 10,000 pixels")):
        images.decode(bomb(), max_pixels=10_000)


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ("ff0a090e880408020100b002", (64, 40)),
        ("ff0a31412408020100980200", (300, 200)),
        ("ff0a3a9cf064041009080201", (9000, 5000)),
        ("ff0a00101009080201009c02", (1, 1)),
    ],
)
def test_size_of_a_jpeg_xl_is_known_before_it_is_decoded(header, size):
    stream = bytes.fromhex(header)
    boxes = b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0\0\0jxl \0\0\0\xc0"
    assert files._jxl_size(stream) == files._jxl_size(boxes + b"jxlc" + stream) == size
    assert files._jxl_size(boxes + b"jxlp\0\0\0\0" + stream) == size
    assert files._jxl_size(png_of(1, 1, 8, 0, b"\0\0")) is None
