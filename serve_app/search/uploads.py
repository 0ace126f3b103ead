"""Reads the image of a request, as base64 or from a URL, into the pixels that an encoder expects.

It is read as `kallos ingest` reads it: the same file gets the same vector.
"""

import asyncio
import base64
import binascii
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from actors.images import Fit, UnusableImage, pixels, read_for
from cluster.profile import Serve
from serve_app.errors import ApiError
from serve_app.models import ImageInput
from serve_app.search.fetch import fetch

# A thread that reads and scales an image cannot be stopped. In separate threads, hostile images block only
# each other, not searches; an upload that waits too long is refused.
_READERS = ThreadPoolExecutor(2, "read-upload")


async def read_pixels(image: ImageInput, fit: Fit, config: Serve) -> np.ndarray:
    """The encoder's input for an image that a request gives as `data` or `url`: uint8 [3, H, W].

    Args:
        image: with `data` or `url`, not an `image_id`.
        fit: the input size of the encoder.
        config: the limits in the profile's `serve`.

    Raises:
        ApiError: 413 `image_too_large`; 422 `bad_base64`, `unusable_image` or `image_too_slow`; for a URL
            also 403 `url_images_off`, and the errors of `fetch`.
    """
    try:
        async with asyncio.timeout(config.upload_timeout_s):
            if image.url is None:
                assert image.data is not None
                return await _read(image.data, fit, config)
            if not config.url_images:
                raise ApiError(
                    403,
                    "url_images_off",
                    "This server fetches no URLs (see `serve.url_images`): send the file as `image.data`.",
                    "image.url",
                )
            return await _read(await fetch(image.url, max_bytes=config.max_upload_bytes), fit, config)
    except TimeoutError:
        raise ApiError(
            422,
            "image_too_slow",
            f"Reading the image took longer than {config.upload_timeout_s:g} s: send a smaller one.",
            _field(image),
        ) from None
    except UnusableImage as error:
        raise ApiError(422, "unusable_image", f"The image cannot be used: {error}.", _field(image)) from None


async def _read(source: str | bytes, fit: Fit, config: Serve) -> np.ndarray:
    def work() -> np.ndarray:
        data = _decoded(source, config.max_upload_bytes) if isinstance(source, str) else source
        return pixels(read_for(data, fit, max_pixels=config.max_upload_pixels).image, fit)

    return await asyncio.get_running_loop().run_in_executor(_READERS, work)


def _decoded(text: str, max_bytes: int) -> bytes:
    if len(text) * 3 // 4 - 2 > max_bytes:  # at most two bytes are padding
        raise _too_large(max_bytes)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(
            422, "bad_base64", "`image.data` is not base64 (RFC 4648, nothing before or after).", "image.data"
        ) from None
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    return data


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(413, "image_too_large", f"The image file is larger than {max_bytes} bytes.", "image.data")


def _field(image: ImageInput) -> str:
    return "image.data" if image.url is None else "image.url"
