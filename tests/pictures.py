"""Image files for tests: plain photographs, and every unusual or hostile kind of file."""

import struct
import zlib
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image

ORIENTATION_TAG = 0x0112


def gradient(width: int = 120, height: int = 90, seed: int = 0) -> Image.Image:
    """A smooth RGB image that depends on the seed."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options) -> bytes:
    """The bytes of an image file."""
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def rotated_by_exif() -> bytes:
    """A 120 x 60 JPEG with a red left half and EXIF rotation: shown as 60 x 120 with a red upper half."""
    image = Image.new("RGB", (120, 60), "blue")
    image.paste((255, 0, 0), (0, 0, 60, 60))
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    return encoded(image, quality=95, exif=exif.tobytes())


def deep_grey() -> bytes:
    """A 16-bit PNG in middle grey; clipped at 255 it would be white."""
    return encoded(Image.fromarray(np.full((40, 50), 32768, np.uint16)), "PNG")


def animated() -> bytes:
    """A GIF of two frames, red then blue."""
    frames = [Image.new("RGB", (50, 40), colour) for colour in ("red", "blue")]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def commented_gif() -> bytes:
    """A GIF whose comment is too long for a JPEG."""
    return encoded(gradient(), "GIF", comment=b"palm tree" * 8_000)


def chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    """A chunk of a PNG; the right checksum unless another is given."""
    right = zlib.crc32(kind + data)
    return (
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", right if checksum is None else checksum)
    )


def png_of(width: int, height: int, depth: int, colour_type: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG of these raw rows, each behind its filter byte, and further chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + data + chunk(b"IEND", b"")


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """The PNG with further chunks behind its header."""
    return png[:33] + b"".join(chunks) + png[33:]


def bomb(width: int = 20_000, height: int = 20_000) -> bytes:
    """A tiny PNG with width x height px in its header: 1.2 GB once decoded."""
    return png_of(width, height, 8, 2, b"\0" * 1000)


@cache
def text_bomb() -> bytes:
    """The packed text of a chunk that unpacks to 128 MB."""
    return b"\0" + zlib.compress(bytes(1 << 27))


def grey_tiff(values: np.ndarray, photometric: int = 1) -> bytes:
    """A little-endian TIFF of grey values of any type; photometric 0: white is 0."""
    height, width = values.shape
    sample_format = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags = {256: width, 257: height, 258: 8 * values.itemsize, 259: 1, 262: photometric, 277: 1, 278: height}
    tags |= {279: values.nbytes, 339: sample_format, 273: 8 + 2 + 12 * 10 + 4}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + values.tobytes()


def exif_of(*entries: tuple[int, int, int, bytes]) -> bytes:
    """EXIF with one folder of these tags: number, type, count, the value or its place in four bytes."""
    packed = [struct.pack("<HHI4s", *entry) for entry in entries]
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(packed)) + b"".join(packed) + bytes(4)


def icc_profile(space: bytes, gamma: float, primaries: Sequence[tuple[float, ...]] = ()) -> bytes:
    """A colour profile of the space `RGB ` or `GRAY`: the XYZ of its primaries under D50, and a gamma."""

    def numbers(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    white = (0.9642, 1.0, 0.8249)
    curve = b"curv" + struct.pack(">IIHxx", 0, 1, round(gamma * 256))
    tags = {
        b"wtpt": b"XYZ \0\0\0\0" + numbers(*white),
        b"desc": b"desc" + struct.pack(">II", 0, 1) + bytes(80),
    }
    tags |= {b"cprt": b"text" + bytes(8)} | ({} if primaries else {b"kTRC": curve})
    for colour, primary in zip(b"rgb", primaries, strict=bool(primaries)):
        tags |= {b"%cXYZ" % colour: b"XYZ \0\0\0\0" + numbers(*primary), b"%cTRC" % colour: curve}
    place, table, content = 128 + 4 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        table += name + struct.pack(">II", place + len(content), len(value))
        content += value
    header = struct.pack(">I4sI4s4s4s", place + len(content), b"lcms", 0x02400000, b"mntr", space, b"XYZ ")
    header = (header + bytes(12) + b"acsp" + bytes(28) + numbers(*white)).ljust(128, b"\0")
    return header + struct.pack(">I", len(tags)) + table + content


PROPHOTO = icc_profile(
    b"RGB ", 1.8, [(0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0001), (0.0313, 0.0001, 0.8248)]
)


def heic(image: Image.Image, **options) -> bytes:
    """The bytes of a HEIC file."""
    buffer = BytesIO()
    pillow_heif.from_pillow(image).save(buffer, **options)
    return buffer.getvalue()


@cache
def readable() -> dict[str, bytes]:
    """Unusual files that must be readable."""
    image = gradient()
    see_through = image.convert("RGBA")
    see_through.putalpha(0)
    return {
        "cmyk.jpg": encoded(image.convert("CMYK")),
        "deep_grey.png": deep_grey(),
        "palette.png": encoded(image.quantize(16), "PNG"),
        "alpha.png": encoded(see_through, "PNG"),
        "animated.gif": animated(),
        "commented.gif": commented_gif(),
        "rotated.jpg": rotated_by_exif(),
        "grey.jpg": encoded(image.convert("L")),
        "png_inside.jpg": encoded(image, "PNG"),
        "phone.heic": heic(image),
        "odd_resolution.jpg": encoded(
            image, exif=exif_of((0x011A, 1, 1, b"H"), (ORIENTATION_TAG, 3, 1, b"\6"))
        ),
        "long_text.png": with_chunks(encoded(image, "PNG"), chunk(b"tEXt", b"a\0" + b"x" * 2_000_000)),
        "text_bomb.png": with_chunks(encoded(image, "PNG"), chunk(b"zTXt", b"a\0" + text_bomb())),
        "bad_checksum.png": with_chunks(encoded(image, "PNG"), chunk(b"gAMA", bytes(4), checksum=1)),
        "prophoto.jpg": encoded(image, icc_profile=PROPHOTO),
        "bad_profile.jpg": encoded(image, icc_profile=PROPHOTO[:200]),
        "one_nan.tif": grey_tiff(np.where(np.eye(48), np.nan, 0.5).astype(np.float32)),
        "été ☀ 夕焼け.jpg": encoded(gradient(seed=777_777)),
    }


@cache
def unreadable() -> dict[str, tuple[bytes, str]]:
    """name -> (bytes, pattern of the reason) of files that must be rejected."""
    return {
        "truncated.jpg": (encoded(gradient())[:600], "(?i)truncated"),
        "empty.jpg": (b"", "0 bytes"),
        "text.jpg": (b"<html>404 not found</html>", "not an image"),
        "bomb.png": (bomb(), "pixels"),
        "strip.png": (encoded(Image.new("RGB", (3000, 2)), "PNG"), "strip"),
        "elevation.tif": (grey_tiff(np.full((48, 48), 4810, np.int32)), "have no clear white"),
        "broken.png": (encoded(gradient(), "PNG")[:200], "cannot be decoded"),
    }


def write_photos(folder: Path, count: int, *, seed: int = 0, width: int = 120, height: int = 90) -> list[str]:
    """Write `count` different JPEGs into the folder; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"photo_{index:04d}.jpg" for index in range(count)]
    for index, name in enumerate(names):
        (folder / name).write_bytes(encoded(gradient(width, height, seed=seed * 100_000 + index)))
    return names
