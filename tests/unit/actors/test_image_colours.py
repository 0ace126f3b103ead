"""Depths, transparency and colour profiles: what the pixels of a file mean."""

import struct
from collections.abc import Callable

import numpy as np
import pytest
from pictures import PROPHOTO, chunk, encoded, gradient, grey_tiff, heic, icc_profile, png_of
from PIL import Image, ImageCms

from actors import images
from actors.images import UnusableImage

SIZE = (60, 40)
COLOUR, IN_PROPHOTO = (200, 60, 50), (137, 70, 44)  # the same colour
WHITE = (255, 255, 255)


def plain(colour=IN_PROPHOTO, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, SIZE, colour)


def close(found, expected, tolerance: int = 3) -> bool:
    return np.abs(np.subtract(found, expected)).max() <= tolerance


def jpeg_2000(profile: bytes) -> bytes:
    """A JPEG 2000 file with a profile, which Pillow does not write."""
    data = encoded(plain(), "JPEG2000")
    header, colour = data.index(b"jp2h") - 4, data.index(b"colr") - 4
    box = struct.pack(">I", 11 + len(profile)) + b"colr\2\0\0" + profile
    size = int.from_bytes(data[header : header + 4]) - 15 + len(box)
    return data[:header] + struct.pack(">I", size) + data[header + 4 : colour] + box + data[colour + 15 :]


FILES: dict[str, Callable[[bytes], bytes]] = {
    "JPEG": lambda profile: encoded(plain(), quality=100, icc_profile=profile),
    "PNG": lambda profile: encoded(plain(), "PNG", icc_profile=profile),
    "palette": lambda profile: encoded(plain().quantize(4), "PNG", icc_profile=profile),
    "TIFF": lambda profile: encoded(plain(), "TIFF", icc_profile=profile),
    "WEBP": lambda profile: encoded(plain(), "WEBP", lossless=True, icc_profile=profile),
    "AVIF": lambda profile: encoded(plain(), "AVIF", quality=100, icc_profile=profile),
    "HEIC": lambda profile: heic(plain(), quality=100, icc_profile=profile),
    "JPEG 2000": jpeg_2000,
}


@pytest.mark.parametrize("form", FILES)
def test_colours_of_a_profile_become_srgb(form):
    image = images.decode(FILES[form](PROPHOTO))
    assert close(image.getpixel((9, 9)), COLOUR)
    preview = images.decode(images.preview_jpeg(image))
    assert close(preview.getpixel((9, 9)), COLOUR)


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("profile", [PROPHOTO[:200], b"junk" * 50, PROPHOTO[:16] + b"CMYK" + PROPHOTO[20:]])
def test_profile_that_cannot_be_used_is_ignored_and_the_image_is_read(form, profile):
    assert close(images.decode(FILES[form](profile)).getpixel((9, 9)), IN_PROPHOTO)


def test_srgb_profile_changes_no_pixel():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    files = [encoded(gradient()), encoded(gradient(), icc_profile=profile)]
    assert np.array_equal(*map(images.decode, files))


def test_transparency_is_composited_in_srgb():
    see_through = plain().convert("RGBA")
    see_through.putalpha(128)
    found = images.decode(encoded(see_through, "PNG", icc_profile=PROPHOTO)).getpixel((9, 9))
    assert close(found, [(channel + 255) / 2 for channel in COLOUR])


def test_profiles_of_grey_images():
    linear = icc_profile(b"GRAY", 1.0)
    for form in ("JPEG", "PNG", "TIFF"):
        assert close(
            images.decode(encoded(plain(128, "L"), form, icc_profile=linear)).getpixel((9, 9)), [188] * 3
        )
        # A profile for RGB describes grey as well.
        found = images.decode(encoded(plain(128, "L"), form, icc_profile=PROPHOTO)).getpixel((9, 9))
        assert close(found, [146] * 3)
    sixteen = Image.fromarray(np.full((40, 60), 32896, np.uint16))
    assert close(images.decode(encoded(sixteen, "PNG", icc_profile=linear)).getpixel((9, 9)), [188] * 3)
    assert close(images.decode(encoded(plain(), icc_profile=linear)).getpixel((9, 9)), IN_PROPHOTO)


def test_lab_becomes_rgb():
    profiles = [ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")]
    lab = ImageCms.applyTransform(plain(COLOUR), ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    assert close(images.decode(encoded(lab, "TIFF")).getpixel((9, 9)), COLOUR)


def greys(value: float, odd: float, kind: type) -> np.ndarray:
    """48 x 48 equal values but one."""
    values = np.full((48, 48), value).astype(kind)
    values[0, 0] = odd
    return values


@pytest.mark.parametrize(
    ("value", "odd", "kind", "expected"),
    [
        (0.5, 1.0, np.float32, 128),
        (0.5, np.nan, np.float32, 128),
        (0.5, np.inf, np.float32, 128),
        (0.5, -np.inf, np.float32, 128),
        (0.5, 1.5, np.float32, 128),
        (0.5, -0.05, np.float32, 128),
        (128, 255, np.float32, 128),
        (128, np.nan, np.float32, 128),
        (128, 300, np.float32, 128),
        (32896, 65535, np.float32, 128),
        (0.001, 0.002, np.float32, 0),
        (32896, 0, np.uint16, 128),
        (200, 100, np.uint16, 1),
        (16448, 0, np.int16, 128),
        (128, 0, np.int32, 128),
        (128, 0, np.uint32, 128),
        (32896, 0, np.uint32, 128),
        (2**31, 2**32 - 1, np.uint32, 128),
        (2**30, 0, np.int32, 128),
    ],
)
def test_grey_values_of_any_depth_are_scaled(value, odd, kind, expected):
    found = images.decode(grey_tiff(greys(value, odd, kind))).getpixel((9, 9))
    assert close(found, [expected] * 3, 1)


@pytest.mark.parametrize(
    ("value", "odd", "kind"),
    [
        (0.5, 5, np.float32),
        (0.5, -1, np.float32),
        (0.5, 1e9, np.float32),
        (np.nan, np.inf, np.float32),
        (1000, 4000, np.float32),
        (300, 0, np.uint32),
        (-5000, 20000, np.int16),
        (-5000, 0, np.int32),
    ],
)
def test_grey_values_without_a_clear_white_are_refused(value, odd, kind):
    with pytest.raises(UnusableImage, match="have no clear white"):
        images.decode(grey_tiff(greys(value, odd, kind)))


@pytest.mark.parametrize(("value", "kind"), [(16448, np.uint16), (0.25, np.float32)])
def test_grey_values_may_count_from_white(value, kind):
    found = images.decode(grey_tiff(greys(value, value, kind), photometric=0)).getpixel((9, 9))
    assert close(found, [191] * 3, 1)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_that_is_transparent_becomes_white(depth):
    key = {1: 1, 2: 2, 4: 7, 8: 120, 16: 30_000}[depth]
    values = np.repeat([[key], [0]], 20, axis=0).repeat(40, axis=1)  # 20 rows of the key, 20 of black
    bits = (values[..., None] >> np.arange(depth)[::-1]) & 1
    rows = np.packbits(bits.reshape(40, -1).astype(np.uint8), axis=1)
    data = np.insert(rows, 0, 0, axis=1).tobytes()
    image = images.decode(png_of(40, 40, depth, 0, data, chunk(b"tRNS", struct.pack(">H", key))))
    assert (image.getpixel((9, 9)), image.getpixel((9, 30))) == (WHITE, (0, 0, 0))


def test_only_the_exact_grey_of_sixteen_bits_is_transparent():
    values = np.full((40, 40), 30_001, ">u2")
    data = np.insert(values.view(np.uint8), 0, 0, axis=1).tobytes()
    image = images.decode(png_of(40, 40, 16, 0, data, chunk(b"tRNS", struct.pack(">H", 30_000))))
    assert image.getpixel((9, 9)) == (117, 117, 117)


@pytest.mark.parametrize("depth", [8, 16])
def test_colour_that_is_transparent_becomes_white(depth):
    colours = np.repeat([[0x11, 0x22, 0x33], [0x99, 0, 0]], 20, axis=0) * (257 if depth == 16 else 1)
    pixels = colours[:, None].repeat(40, axis=1).astype(">u2" if depth == 16 else np.uint8)
    data = np.insert(pixels.reshape(40, -1).view(np.uint8), 0, 0, axis=1).tobytes()
    key = struct.pack(">HHH", *(int(value) for value in colours[0]))
    image = images.decode(png_of(40, 40, depth, 2, data, chunk(b"tRNS", key)))
    assert (image.getpixel((9, 9)), image.getpixel((9, 30))) == (WHITE, (0x99, 0, 0))
