"""The image of a request: base64 or a URL -> the pixels that an encoder sees, or a refusal that says why not.

It is read as `kallos ingest` reads it: the same file gets the same vector.
"""

import asyncio
import base64
import binascii
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from actors.images import Fit, UnusableImage, pixels, read_for
from cluster.profile import Serve
from serve_app.http.errors import ApiError
from serve_app.http.models import ImageInput
from serve_app.search.fetch import fetch

# A thread that reads an image and scales it cannot be stopped. A few of their own are all that hostile images
# can hold up: those of searches stay free, and what waits here too long is refused.
_READERS = ThreadPoolExecutor(2, "read-upload")


async def pixels_of(given: ImageInput, fit: Fit, config: Serve) -> np.ndarray:
    """What an encoder sees of the picture that a request brings as `data` or `url`: uint8 [3, H, W].

    Args:
        given: with `data` or `url`; an `image_id` is the store's business.
        fit: how the encoder wants its input.
        config: the limits of the profile's `serve`.

    Raises:
        ApiError: 413 `image_too_large`; 422 `bad_base64`, `unusable_image` or `image_too_slow`; for a URL
            also 403 `url_images_off`, and what `fetch` raises.
    """
    try:
        async with asyncio.timeout(config.upload_timeout_s):
            if given.url is None:
                return await _read(given.data, fit, config)
            if not config.url_images:
                raise ApiError(
                    403,
                    "url_images_off",
                    "Images are not fetched here (see `serve.url_images`): send the file as `image.data`.",
                    "image.url",
                )
            return await _read(await fetch(given.url, max_bytes=config.max_upload_bytes), fit, config)
    except TimeoutError:
        raise ApiError(
            422,
            "image_too_slow",
            f"The image could not be had and read within {config.upload_timeout_s:g} s: send a smaller one.",
            _field(given),
        ) from None
    except UnusableImage as error:
        raise ApiError(422, "unusable_image", f"The image cannot be used: {error}.", _field(given)) from None


async def _read(source: str | bytes, fit: Fit, config: Serve) -> np.ndarray:
    def work() -> np.ndarray:
        data = _decoded(source, config.max_upload_bytes) if isinstance(source, str) else source
        return pixels(read_for(data, fit, max_pixels=config.max_upload_pixels).image, fit)

    return await asyncio.get_running_loop().run_in_executor(_READERS, work)


def _decoded(text: str, max_bytes: int) -> bytes:
    if len(text) * 3 // 4 - 2 > max_bytes:  # two bytes at most are padding
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


def _field(given: ImageInput) -> str:
    return "image.data" if given.url is None else "image.url"
