"""Image files for tests: plain photographs, and every unusual or hostile kind of file."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
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


def bomb(width: int = 20_000, height: int = 20_000) -> bytes:
    """A tiny PNG with width x height px in its header: 1.2 GB once decoded."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    )


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
        "été ☀ 夕焼け.jpg": encoded(gradient(seed=777_777)),
    }


def unreadable() -> dict[str, tuple[bytes, str]]:
    """name -> (bytes, pattern of the reason) of files that must be rejected."""
    return {
        "truncated.jpg": (encoded(gradient())[:600], "(?i)truncated"),
        "empty.jpg": (b"", "0 bytes"),
        "text.jpg": (b"<html>404 not found</html>", "not an image"),
        "bomb.png": (bomb(), "pixels"),
        "strip.png": (encoded(Image.new("RGB", (3000, 2)), "PNG"), "strip"),
        "broken.png": (encoded(gradient(), "PNG")[:200], "cannot be decoded"),
    }


def write_photos(folder: Path, count: int, *, seed: int = 0, width: int = 120, height: int = 90) -> list[str]:
    """Write `count` different JPEGs into the folder; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"photo_{index:04d}.jpg" for index in range(count)]
    for index, name in enumerate(names):
        (folder / name).write_bytes(encoded(gradient(width, height, seed=seed * 100_000 + index)))
    return names
