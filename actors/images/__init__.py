"""Bytes of an image file -> checked, upright RGB pixels, a preview, an id. Imports no torch.

Batch jobs and the search endpoint use the same functions, so that both see the same pixels.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import numpy as np
import pillow_heif
import pyarrow as pa
from PIL import Image, ImageOps
from pyarrow import fs

from cluster.files import read_file

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
PREVIEW_QUALITY = 85
# A JPEG may be decoded at a smaller scale, but its shorter side keeps at least this length, and at least
# this multiple of the length needed.
LEAST_SIDE_PX, OVERSAMPLING = 512, 2
# The columns of `images` that `read_stored` reads.
STORED = ("image_id", "uri", "preview", "width_px", "height_px")
RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class UnusableImage(ValueError):
    """The input cannot be read as an image; the message gives the reason."""


@dataclass(frozen=True)
class Decoded:
    """An upright RGB image; `width_px`, `height_px` are the file's, even if decoded at a smaller scale."""

    image: Image.Image
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Fit:
    """The size and shape of an encoder's input: open_clip's preprocessing without the normalisation."""

    height_px: int
    width_px: int
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0


def image_id(data: bytes) -> str:
    """The id of an image: sha256 of the file's bytes, 64 hex characters."""
    return hashlib.sha256(data).hexdigest()


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Bytes of an image file -> upright RGB image at full size. Raises UnusableImage."""
    return read(data, max_pixels=max_pixels).image


def read(data: bytes, *, max_pixels: int = MAX_PIXELS, min_side_px: int = 0) -> Decoded:
    """Decode to upright (EXIF) RGB on white: the first frame of an animation, 16 bits scaled to 8.

    With `min_side_px` above 0 a JPEG may be decoded at 1/2, 1/4 or 1/8, its shorter side never below that.
    Raises UnusableImage.
    """
    if not data:
        raise UnusableImage("the file is empty (0 bytes)")
    try:
        _load_plugins()
        image = Image.open(BytesIO(data), formats=[form for form in FORMATS if form in Image.OPEN])
        _check_size(image.size, max_pixels)
        return _upright_rgb(image, min_side_px)
    except UnusableImage:
        raise
    except Image.UnidentifiedImageError as error:
        raise UnusableImage(f"not an image in a known format (begins with {data[:8]!r})") from error
    except Image.DecompressionBombError as error:
        raise UnusableImage(f"more than the allowed {max_pixels:,} pixels: {error}") from error
    except Exception as error:  # Pillow's decoders raise nearly every built-in type on hostile input
        raise UnusableImage(f"cannot be decoded: {type(error).__name__}: {error}") from error


@cache
def _load_plugins() -> None:
    """Register every format: one without its plugin would raise KeyError."""
    Image.init()
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    if _JXL:
        import_module("pillow_jxl")


def read_for(data: bytes, fit: "Fit", *, max_pixels: int = MAX_PIXELS, preview_px: int = 0) -> Decoded:
    """Decode for an encoder and a preview; a large JPEG only as large as good downscaling needs."""
    needed_px = max(fit.height_px, fit.width_px, preview_px)
    return read(data, max_pixels=max_pixels, min_side_px=_least_side_px(needed_px))


def _least_side_px(needed_px: int) -> int:
    return max(LEAST_SIDE_PX, OVERSAMPLING * needed_px)


def read_stored(row: Mapping[str, Any], *, shorter_px: int = 0, longer_px: int = 0) -> Image.Image:
    """An image of the store, with at least these side lengths if the file has them; `row`: columns `STORED`.

    Returns the preview if it is large enough or as large as the file, else the file. A file that is gone, has
    changed or cannot be decoded is replaced by the preview, as in the index. Raises UnusableImage when the
    preview cannot be read.
    """
    preview = decode(row["preview"])
    large_enough = min(preview.size) >= shorter_px and max(preview.size) >= longer_px
    if large_enough or max(preview.size) >= max(row["width_px"], row["height_px"]):
        return preview
    try:
        return read(read_original(row), min_side_px=_least_side_px(max(shorter_px, longer_px))).image
    except UnusableImage:
        return preview


def read_original(row: Mapping[str, Any]) -> bytes:
    """The file of a row of `images` (`image_id`, `uri`). Raises UnusableImage if it is gone or changed."""
    data = read_uri(row["uri"])
    if image_id(data) != row["image_id"]:
        raise UnusableImage("the file is no longer the one that was ingested")
    return data


def read_uri(uri: str) -> bytes:
    """The bytes at a path or filesystem URI. Raises UnusableImage."""
    try:
        filesystem, path = fs.FileSystem.from_uri(uri) if "://" in uri else (fs.LocalFileSystem(), uri)
        return read_file(filesystem, path)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise UnusableImage(f"cannot be opened: {error}") from error


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise UnusableImage(f"{width} x {height} px are more than the allowed {max_pixels:,} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UnusableImage(
            f"{width} x {height} px is a strip: one side is over {MAX_ASPECT} times the other"
        )


def _upright_rgb(image: Image.Image, min_side_px: int) -> Decoded:
    full_width, full_height = image.size
    if min_side_px:
        shrink = min(image.size) / min_side_px
        image.draft(None, (int(full_width / shrink), int(full_height / shrink)) if shrink > 1 else image.size)
    image.load()
    decoded = image.size
    ImageOps.exif_transpose(image, in_place=True)
    if (image.size[0] > image.size[1]) != (decoded[0] > decoded[1]):
        full_width, full_height = full_height, full_width
    return Decoded(_to_rgb(image), full_width, full_height)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def _eight_bits(grey: np.ndarray) -> np.ndarray:
    """Grey values of 16 or 32 bits, or floats in [0, 1], -> uint8; Pillow itself would clip at 255."""
    if grey.dtype.kind == "f":
        scale = 255.0 if grey.max(initial=0) <= 1 else 1.0
    else:
        scale = 1 / 257 if grey.max(initial=0) > 255 else 1.0
    return np.clip(grey * scale + 0.5, 0, 255).astype(np.uint8)


def preview_jpeg(image: Image.Image, longer_side_px: int = 256) -> bytes:
    """A JPEG without metadata, its longer side at most `longer_side_px`; never enlarged."""
    preview = image
    if max(image.size) > longer_side_px:
        scale = longer_side_px / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        preview = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = BytesIO()
    preview.save(
        buffer, "JPEG", quality=PREVIEW_QUALITY, comment=b""
    )  # otherwise Pillow keeps the file's comment
    return buffer.getvalue()


def pixels(image: Image.Image, fit: Fit) -> np.ndarray:
    """RGB image -> uint8 [3, H, W], resized and cropped exactly as open_clip's validation transform does."""
    resized = image.resize(_resized(image.size, fit), RESAMPLING[fit.interpolation])
    cropped = _centre(resized, fit)
    return np.ascontiguousarray(np.asarray(cropped, dtype=np.uint8).transpose(2, 0, 1))


def _resized(size: tuple[int, int], fit: Fit) -> tuple[int, int]:
    """(width, height) before the crop; truncation and rounding follow torchvision and open_clip."""
    width, height = size
    if fit.resize_mode == "squash":
        return fit.width_px, fit.height_px
    if fit.resize_mode == "shortest" and fit.width_px == fit.height_px:
        shorter = min(size)
        width, height = (
            fit.width_px if side == shorter else int(fit.width_px * side / shorter) for side in size
        )
        return width, height
    choose = max if fit.resize_mode == "longest" else min
    ratio = choose(height / fit.height_px, width / fit.width_px)
    return round(width / ratio), round(height / ratio)


def _centre(image: Image.Image, fit: Fit) -> Image.Image:
    """Crop to the centre, and pad where the image is too small."""
    width, height = image.size
    if (width, height) == (fit.width_px, fit.height_px):
        return image
    pad_left = max(0, (fit.width_px - width) // 2)
    pad_top = max(0, (fit.height_px - height) // 2)
    left = round((width - fit.width_px) / 2) if width > fit.width_px else -pad_left
    top = round((height - fit.height_px) / 2) if height > fit.height_px else -pad_top
    if left >= 0 and top >= 0 and width >= fit.width_px and height >= fit.height_px:
        return image.crop((left, top, left + fit.width_px, top + fit.height_px))
    canvas = Image.new("RGB", (fit.width_px, fit.height_px), (fit.fill_color,) * 3)
    canvas.paste(image, (-left, -top))
    return canvas
