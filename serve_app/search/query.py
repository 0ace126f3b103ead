"""Turns a search request into a query vector in an encoder's space."""

import asyncio
from time import perf_counter

import numpy as np

from actors.nulls.axis import Axis
from cluster.profile import Serve
from serve_app.errors import ApiError
from serve_app.models import BaseSearchRequest, ImageInput, WordsRead
from serve_app.search import beauty, tastes, uploads
from serve_app.search.step_timer import StepTimer
from serve_app.search.systems import System


async def vector(
    request: BaseSearchRequest, system: System, axis: Axis, config: Serve, timer: StepTimer
) -> np.ndarray:
    """The query vector, float32 [D], normalised.

    It is the sum of words and image, minus the negatives, shifted by the tastes, then moved along the axis.

    Raises ApiError for an unknown taste or image, or an upload that cannot be read.
    """
    unknown = sorted(set(request.tastes) - set(system.axes))
    if unknown:
        raise ApiError(422, "unknown_taste", f"There is no taste {unknown[0]!r}: see /v1/tastes.", "tastes")
    started, point = perf_counter(), np.zeros(system.encoder.dim)
    if request.image is not None:
        share = request.image_weight if request.query else 1.0
        point += share * await _image_vector(request.image, system, config)
        started = timer.record("image", started)
    texts = [*([request.query] if request.query else []), *request.negatives]
    if texts:
        encoded = await asyncio.gather(*(system.encode_text(text) for text in texts))
        if request.query:
            point += (1.0 - request.image_weight if request.image else 1.0) * encoded.pop(0)
        if encoded:
            point -= request.negative_weight * np.mean(encoded, axis=0)
        timer.record("encode", started)
    point = tastes.shift(point, system.axes, request.tastes)
    point = (point / max(float(np.linalg.norm(point)), 1e-12)).astype(np.float32)
    return beauty.shift(point, axis, request.beauty) if request.beauty else point


def words_read(text: str, system: System) -> WordsRead:
    """How many words of the text the encoder reads."""
    return WordsRead(given=len(text.split()), read=system.encoder.num_words_read(text))


async def _image_vector(image: ImageInput, system: System, config: Serve) -> np.ndarray:
    if image.image_id is None:
        return await system.encode_image(await uploads.read_pixels(image, system.encoder.fit, config))
    stored = system.retriever.table.search().where(f"image_id = '{image.image_id}'").select(["vector"])
    rows = await asyncio.to_thread(stored.limit(1).to_list)
    if not rows:
        raise ApiError(404, "unknown_image", "There is no image with this id.", "image.image_id")
    return np.asarray(rows[0]["vector"], np.float32)
