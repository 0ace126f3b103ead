"""The pixels of an image file, of any mode, depth and colour profile -> 8-bit sRGB on white."""

from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageCms, TiffImagePlugin

from actors.images.files import MAX_UNPACKED_BYTES, UnusableImage

# Modes that are converted before anything else.
SIMPLER = {"1": "L", "P": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA", "YCbCr": "RGB", "HSV": "RGB"}
DESCRIBED = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}  # the colour space in a profile -> the mode
SAME = 2  # of 255: a profile that changes no colour by more than this counts as sRGB
WHITE_IS_ZERO, SIGNED = 0, 2  # values of a TIFF's tags


def to_rgb(image: Image.Image) -> Image.Image:
    """A decoded file -> RGB in the colour space sRGB, on white where it is transparent.

    A profile that is broken or made for another kind of image is ignored. Raises UnusableImage for grey
    values whose range is unclear.
    """
    profile = image.info.get("icc_profile")
    if image.mode == "RGB" and not profile and "transparency" not in image.info:
        return image
    image = _eight_bits(image)
    if not image.mode.endswith("A"):
        return _to_srgb(image, profile)
    white = Image.new("RGB", image.size, "white")
    white.paste(_to_srgb(image.convert(image.mode[:-1]), profile), mask=image.getchannel("A"))
    return white


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image of any mode -> L, LA, RGB, RGBA, CMYK or LAB."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _grey(image)
    if image.mode in ("1", "L", "P", "RGB") and image.has_transparency_data:
        return image.convert("LA" if image.mode in ("1", "L") else "RGBA")
    return _as(SIMPLER.get(image.mode, image.mode), image)


def _to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """L, RGB, CMYK or LAB -> RGB."""
    usable = isinstance(profile, bytes) and len(profile) <= MAX_UNPACKED_BYTES
    conversion = _conversion(profile, image.mode) if usable else None
    if conversion is None:
        return _as("RGB", image)
    return conversion.apply(_as(conversion.input_mode, image))


def _as(mode: str, image: Image.Image) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)


@lru_cache(16)
def _conversion(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile's colours to sRGB; None if it is sRGB, broken, or not made for images of this mode."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        described = DESCRIBED[profile[16:20]]
        if (described, mode) != ("RGB", "L") and described != mode:
            return None
        conversion = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), described, "RGB")
        if described == "RGB" and _changes_nothing(conversion):
            return None
        return conversion
    except Exception:  # Pillow raises several types for profiles that it cannot read
        return None


def _changes_nothing(conversion: ImageCms.ImageCmsTransform) -> bool:
    """Whether all colours of a grid stay the same: most profiles are sRGB, which needs no conversion."""
    colours = np.indices((16, 16, 16), np.uint8).reshape(3, 64, 64).transpose(1, 2, 0) * np.uint8(17)
    converted = np.asarray(conversion.apply(Image.fromarray(colours)))
    return bool(np.abs(colours.astype(int) - converted).max() <= SAME)


def _grey(image: Image.Image) -> Image.Image:
    """Grey values of more than 8 bits -> L, or LA where one value is transparent."""
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.mode == "I" and tags and not _is_signed(tags):
        values = values.view(np.uint32)  # Pillow reads unsigned values as signed
    grey = Image.fromarray(_scaled(values, _whites(image.mode, tags)))
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
        grey = ImageChops.invert(grey)
    transparent = image.info.get("transparency")
    if transparent is None:
        return grey
    alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
    return Image.merge("LA", (grey, Image.fromarray(alpha)))


def _whites(mode: str, tags: Mapping[int, Any]) -> list[int]:
    """The values that may mean white: floats have no fixed one, and few 32-bit images use the whole range."""
    if mode == "F":
        return [1, 255, 65535]
    if not tags:  # PNG and JPEG 2000; Pillow scales the grey values of a PPM to 16 bits
        return [65535]
    full = (1 << tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0] - _is_signed(tags)) - 1
    return sorted({255, min(full, 65535), full}) if mode == "I" else [full]


def _is_signed(tags: Mapping[int, Any]) -> bool:
    return tags.get(TiffImagePlugin.SAMPLEFORMAT) == (SIGNED,)


def _scaled(values: np.ndarray, whites: list[int]) -> np.ndarray:
    """Grey values -> uint8, scaled from 0 (black) to the first of `whites` that fits them.

    Floats may be up to twice as bright as white, as in high dynamic range photographs; NaN becomes black.
    Raises UnusableImage if no white fits: the image would be nearly black, or white.
    """
    headroom = 2 if values.dtype.kind == "f" else 1
    known = values[np.isfinite(values)] if headroom > 1 else values
    lowest, highest = (known.min(), known.max()) if known.size else (np.nan, np.nan)
    white = next((white for white in whites if lowest <= highest <= white * headroom), None)
    if white is None or lowest < -white / 10 or (white != whites[0] and highest < white / 4):
        raise UnusableImage(
            f"its grey values, {lowest:g} to {highest:g}, have no clear white: save it with 8 bits"
        )
    grey = np.nan_to_num(values.astype(np.float32), copy=False, nan=0, posinf=white, neginf=0)
    grey *= 255 / white
    grey += 0.5
    return np.clip(grey, 0, 255, out=grey).astype(np.uint8)
