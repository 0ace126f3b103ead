"""A request as a point in an encoder's space and a condition on its table."""

import asyncio
from time import perf_counter

import numpy as np

from cluster.profile import Serve
from serve_app.http.errors import ApiError
from serve_app.http.models import ImageInput, SearchBase
from serve_app.search import filters, tastes, uploads
from serve_app.search.clock import Clock
from serve_app.search.systems import System


def condition(request: SearchBase, system: System) -> str:
    """The filters as SQL. Raises ApiError (422) where the table lacks what they ask about."""
    if request.filters.min_aesthetic is not None and "aesthetic" not in system.retriever.filterable:
        raise ApiError(
            422,
            "not_filterable",
            "The index holds no aesthetic scores: `kallos index` adds them.",
            "filters.min_aesthetic",
        )
    return filters.where(request.filters)


async def vector(request: SearchBase, system: System, config: Serve, clock: Clock) -> np.ndarray:
    """The point to search near, float32 [D] of length 1: words, image, away from negatives, leaned.

    Raises ApiError for a taste or image that is not there, or an upload that cannot be read.
    """
    unknown = sorted(set(request.tastes) - set(system.axes))
    if unknown:
        raise ApiError(422, "unknown_taste", f"There is no taste {unknown[0]!r}: see /v1/tastes.", "tastes")
    begun, point = perf_counter(), np.zeros(system.encoder.dim)
    if request.image is not None:
        share = request.image_weight if request.query else 1.0
        point += share * await _image_vector(request.image, system, config)
        begun = clock.step("image", begun)
    texts = [*([request.query] if request.query else []), *request.negatives]
    if texts:
        encoded = await asyncio.gather(*(system.encode(text) for text in texts))
        if request.query:
            point += (1.0 - request.image_weight if request.image else 1.0) * encoded.pop(0)
        if encoded:
            point -= request.negative_weight * np.mean(encoded, axis=0)
        clock.step("encode", begun)
    point = tastes.lean(point, system.axes, request.tastes)
    return (point / max(float(np.linalg.norm(point)), 1e-12)).astype(np.float32)


async def _image_vector(image: ImageInput, system: System, config: Serve) -> np.ndarray:
    if image.image_id is None:
        return await system.see(await uploads.pixels_of(image, system.encoder.fit, config))
    found = system.retriever.table.search().where(f"image_id = '{image.image_id}'").select(["vector"])
    rows = await asyncio.to_thread(found.limit(1).to_list)
    if not rows:
        raise ApiError(404, "unknown_image", "There is no image of that id here.", "image.image_id")
    return np.asarray(rows[0]["vector"], np.float32)
