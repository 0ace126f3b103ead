"""Bytes of an image file -> checked, upright RGB pixels, a preview, an id. Imports no torch.

Batch jobs and the search endpoint use the same functions, so that both see the same pixels.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageFile
from pyarrow import fs

from actors.images.colours import to_rgb
from actors.images.files import MAX_PIXELS, TURNS, UnusableImage, open_image, turn
from cluster.files import read_file

PREVIEW_QUALITY = 85
# A JPEG may be decoded at a smaller scale, but its shorter side keeps at least this length, and at least
# this multiple of the length needed.
LEAST_SIDE_PX, OVERSAMPLING = 512, 2
# The columns of `images` that `read_stored` and `read_stored_file` read.
STORED = ("image_id", "uri", "preview", "width_px", "height_px")
SIDEWAYS = {method for value, method in TURNS.items() if value >= 5}
RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


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
    """Decode to upright RGB in the colour space sRGB, on white: the first frame of an animation.

    With `min_side_px` above 0 a JPEG may be decoded at 1/2, 1/4 or 1/8, its shorter side never below that.
    Raises UnusableImage.
    """
    if not data:
        raise UnusableImage("the file is empty (0 bytes)")
    try:
        return _upright_rgb(open_image(data, max_pixels), min_side_px)
    except UnusableImage:
        raise
    except Image.UnidentifiedImageError as error:
        raise UnusableImage(f"not an image of a known format and kind (begins with {data[:8]!r})") from error
    except Image.DecompressionBombError as error:
        raise UnusableImage(f"it has more than the allowed {max_pixels:,} pixels") from error
    except Exception as error:  # Pillow's decoders raise nearly every built-in type on hostile input
        reason = " ".join(str(error).split())
        raise UnusableImage(f"cannot be decoded: {type(error).__name__}: {reason}") from error


def read_for(data: bytes, fit: "Fit", *, max_pixels: int = MAX_PIXELS, preview_px: int = 0) -> Decoded:
    """Decode for an encoder and a preview; a large JPEG only as large as good downscaling needs."""
    needed_px = max(fit.height_px, fit.width_px, preview_px)
    return read(data, max_pixels=max_pixels, min_side_px=_least_side_px(needed_px))


def _least_side_px(needed_px: int) -> int:
    return max(LEAST_SIDE_PX, OVERSAMPLING * needed_px)


def read_stored(row: Mapping[str, Any], *, shorter_px: int = 0, longer_px: int = 0) -> Image.Image:
    """An image of the store, with at least these side lengths if the file has them; `row`: columns `STORED`.

    Returns the preview if it is large enough or as large as the file, else the file. If one of them cannot be
    read, the other is used, as in the index: a file may be gone or have changed. Raises UnusableImage when
    neither can be read.
    """
    preview, reason = None, ""
    try:
        preview = decode(row["preview"])
        is_large = min(preview.size) >= shorter_px and max(preview.size) >= longer_px
        if is_large or max(preview.size) >= max(row["width_px"], row["height_px"]):
            return preview
    except UnusableImage as error:
        reason = str(error)
    try:
        return read_stored_file(row, max(shorter_px, longer_px))
    except UnusableImage as error:
        if preview is None:
            raise UnusableImage(f"preview: {reason}; file: {error}") from error
        return preview


def read_stored_file(row: Mapping[str, Any], needed_px: int) -> Image.Image:
    """The file of a row of `images`; a large JPEG only as large as downscaling to `needed_px` needs.

    It may have as many pixels as `kallos ingest` let it have. Raises UnusableImage.
    """
    max_pixels = row["width_px"] * row["height_px"]
    return read(read_original(row), max_pixels=max_pixels, min_side_px=_least_side_px(needed_px)).image


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
    except Exception as error:  # a filesystem's client raises what it likes, such as errors of HTTP
        raise UnusableImage(f"cannot be opened: {error}") from error


def _upright_rgb(image: ImageFile.ImageFile, min_side_px: int) -> Decoded:
    full_width, full_height = image.size
    if min_side_px and image.format in ("JPEG", "MPO"):
        shrink = min(image.size) / min_side_px
        image.draft(None, (int(full_width / shrink), int(full_height / shrink)) if shrink > 1 else image.size)
    image.load()
    rgb, turned = to_rgb(image), turn(image)
    if turned is None:
        return Decoded(rgb, full_width, full_height)
    upright = rgb.transpose(turned)
    if turned in SIDEWAYS:
        full_width, full_height = full_height, full_width
    return Decoded(upright, full_width, full_height)


def preview_jpeg(image: Image.Image, longer_side_px: int = 256) -> bytes:
    """A JPEG without metadata, its longer side at most `longer_side_px`; never enlarged."""
    preview = image
    if max(image.size) > longer_side_px:
        # Rounded up: otherwise the preview of an image that is nearly a strip could be refused as a strip.
        width, height = (-(-side * longer_side_px // max(image.size)) for side in image.size)
        preview = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = BytesIO()
    # Without `comment`, Pillow keeps that of the file.
    preview.save(buffer, "JPEG", quality=PREVIEW_QUALITY, comment=b"")
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
