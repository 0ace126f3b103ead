"""Opens image files in memory: which formats, which sizes, which way up.

Broken metadata must not make an image unusable if its pixels can be read: metadata at which Pillow would fail
is removed from the bytes first.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO

import pillow_heif
from PIL import ExifTags, Image, ImageFile, PngImagePlugin

from cluster.compat import pillow

# Only formats that are decoded in this process: Pillow would start Ghostscript for an EPS file.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF", "JXL")
_JXL = ("jxl",) if find_spec("pillow_jxl") else ()  # a plugin that may be installed
# The suffixes of these formats' files, in lower case without the dot.
SUFFIXES = frozenset((
    "jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff",
    "ppm", "pgm", "pbm", "pnm", "pfm", "avif", "avifs", "jp2", "j2k", "jpc", "jpf", "jpx", "j2c",
    "heic", "heics", "heif", "heifs", "hif", *_JXL,
))  # fmt: skip
MAX_PIXELS = 100_000_000
# A strip of 1 x 60,000 px is a small file, but huge once its shorter side is scaled to the encoder's size.
MAX_ASPECT = 50
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Text chunks of a PNG that may hold its orientation, and the size limit of an unpacked one or of a profile.
ORIENTATION_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
MAX_UNPACKED_BYTES = 1 << 23
# An `infe` box that declares an item of EXIF: version, flags, item's number, protection, type.
EXIF_ITEM = re.compile(rb"(infe[\x02\x03].{7,9})Exif", re.DOTALL)
# The start of a JPEG XL stream, in a box `jxlc` or the first of several `jxlp` unless it is the whole file.
JXL_HEADER = re.compile(rb"(?:....JXL .{,65536}?(?:jxlc|jxlp....))?\xff\x0a", re.DOTALL)
ORIENTATION = ExifTags.Base.Orientation
EXIF_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i"}  # a tag's type -> that of `struct`
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnusableImage(ValueError):
    """The input cannot be read as an image; the message gives the reason."""


def open_image(data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """Bytes of an image file -> its first frame, not decoded yet.

    Raises UnusableImage for a size that is not allowed, and whatever Pillow raises.
    """
    _load_plugins()
    # Pillow raises at twice its own limit, before it allocates: that must never be below ours.
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)
    if size := _jxl_size(data):  # its plugin decodes in `Image.open`, so the size is checked before
        check_size(size, max_pixels)
    forms = [form for form in FORMATS if form in Image.OPEN]
    image = Image.open(BytesIO(_without_extras(data)), formats=forms)
    check_size(image.size, max_pixels)
    if image.format == "PNG" and "transparency" in image.info:
        image.info["transparency"] = _transparent(image, depth=data[24])
    if not isinstance(image.info.get("xmp"), bytes):  # a TIFF may give it any type
        image.info.pop("xmp", None)
    if image.format == "JPEG2000":
        image.info["icc_profile"] = _jp2_profile(data)
    return image


def _transparent(png: ImageFile.ImageFile, depth: int) -> int | bytes | tuple[int, ...]:
    """The grey or colour that is transparent, scaled as Pillow scales the pixels; a palette's stays as is."""
    key, top = png.info["transparency"], (1 << min(depth, 8)) - 1

    def scaled(value: int) -> int:
        return (value >> 8 if depth == 16 else value & top) * 255 // top

    if png.mode == "RGB":
        return tuple(scaled(value) for value in key)
    return scaled(key) if png.mode == "L" else key


@cache
def _load_plugins() -> None:
    """Register every format: one without its plugin would raise KeyError."""
    Image.init()
    pillow.ignore_resolution()
    PngImagePlugin.MAX_TEXT_CHUNK = MAX_UNPACKED_BYTES  # its default refuses a large colour profile
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    if _JXL:
        import_module("pillow_jxl")


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raises UnusableImage for too many pixels, and for a strip."""
    width, height = size
    if width * height > max_pixels:
        raise UnusableImage(f"{width} x {height} px are more than the allowed {max_pixels:,} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UnusableImage(
            f"{width} x {height} px is a strip: one side is over {MAX_ASPECT} times the other"
        )


def _jp2_profile(data: bytes) -> bytes | None:
    """The colour profile in the box `colr` of a JPEG 2000 file, which Pillow does not read."""
    name = data.find(b"colr\2")  # length (4 bytes), name (4), method 2 (1), two bytes, profile
    end = name - 4 + int.from_bytes(data[name - 4 : name])
    return data[name + 7 : end] if name > 4 else None


def _jxl_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in the header of a JPEG XL file, bare or in boxes; None for another format."""
    if not (header := JXL_HEADER.match(data)):
        return None
    bits = int.from_bytes(data[header.end() : header.end() + 12], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def side() -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    small = take(1)
    height = side()
    ratio = take(3)
    if ratio == 0:
        return side(), height
    wide, high = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * wide // high, height


def turn(image: ImageFile.ImageFile) -> Image.Transpose | None:
    """The transposition that makes a decoded image upright, None for none. Broken other tags are ignored."""
    # The decoders of these turn the image themselves, except for a JPEG inside a JPEG XL file.
    if image.format in ("TIFF", "HEIF") or (image.format == "JXL" and not getattr(image, "jpeg", False)):
        return None
    try:
        return TURNS.get(_orientation(image.info.get("exif") or b"") or image.getexif()[ORIENTATION])
    except Exception:  # there is no orientation, or Pillow cannot read it
        return None


def _orientation(exif: bytes) -> int | None:
    """The orientation in EXIF, of any integer type. Pillow gives up at the first tag that it cannot read."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = "<" if tiff.startswith(b"II") else ">"
    with suppress(struct.error):  # the data end early
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == ORIENTATION and kind in EXIF_INTEGERS:
                return struct.unpack_from(order + EXIF_INTEGERS[kind], tiff, entry + 8)[0]
    return None


def _without_extras(data: bytes) -> bytes:
    """The file without the metadata for which Pillow would refuse it."""
    if data.startswith(PNG_SIGNATURE):
        return PNG_SIGNATURE + b"".join(_needed_chunks(data))
    if data[4:8] == b"ftyp":  # AVIF and HEIF have an orientation of their own
        return EXIF_ITEM.sub(rb"\1none", data)
    return data


def _needed_chunks(png: bytes) -> Iterator[bytes]:
    """The chunks of a PNG that its pixels, colours and orientation need.

    Other ancillary chunks (lower-case first letter), and those with a wrong checksum, are left out: texts may
    be large or unpack to gigabytes. Of an animation the first frame remains.
    """
    start, colour_type = len(PNG_SIGNATURE), png[25:26]
    while start < len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4])
        kind = png[start + 4 : start + 8]
        if not kind[:1].islower() or _is_needed(png[start + 4 : end], colour_type):
            yield png[start:end]
        start = len(png) if kind == b"IEND" else end


def _is_needed(chunk: bytes, colour_type: bytes) -> bool:
    """Whether an ancillary chunk (type, content, checksum) is intact and needed."""
    kind, content, checksum = chunk[:4], chunk[4:-4], chunk[-4:]
    if zlib.crc32(kind + content) != int.from_bytes(checksum):
        return False
    if kind == b"tRNS":
        return len(content) >= {b"\0": 2, b"\2": 6}.get(colour_type, 1)
    _, _, value = content.partition(b"\0")
    if kind == b"iCCP":
        return _unpacks(value)
    if kind in (b"tEXt", b"zTXt", b"iTXt"):
        is_packed = kind == b"zTXt" or (kind == b"iTXt" and not value.startswith(b"\0"))
        return content.startswith(ORIENTATION_TEXTS) and (not is_packed or _unpacks(value))
    return kind == b"eXIf"


def _unpacks(value: bytes) -> bool:
    """Whether Pillow can unpack the value: one byte for the method (0: zlib), then the packed bytes."""
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(value[1:], MAX_UNPACKED_BYTES)
    except zlib.error:
        return False
    return value.startswith(b"\0") and not unpacker.unconsumed_tail
