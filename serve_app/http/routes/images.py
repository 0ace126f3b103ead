"""Routes of single images: preview, heat map for a query, deletion."""

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, TypeVar

from fastapi import FastAPI, Path, Query, Request, Response

from cluster.profile import Serve
from serve_app.errors import ApiError
from serve_app.http.routes import cached, refusals
from serve_app.models import Deleted, Heatmap, Words
from serve_app.search.service import Service

IMAGE_ID = re.compile("[0-9a-f]{64}")
# Heat maps run one at a time, in their own thread, so that they do not block searches.
_HEATMAPS = ThreadPoolExecutor(1, "heatmap")
ImageId = Annotated[str, Path(description="sha256 of the image file's bytes, 64 hex characters")]
Result = TypeVar("Result")


def add(app: FastAPI, service: Service, config: Serve) -> None:
    """Add the routes to the app."""

    @app.get(
        "/v1/images/{image_id}/preview",
        response_class=Response,
        responses={
            200: {"content": {"image/jpeg": {}}},
            304: {"description": "Not modified"},
            **refusals(401, 404, 429, 503),
        },
        summary="The preview of an image: a small JPEG",
    )
    def preview(image_id: ImageId, request: Request) -> Response:
        # Clients revalidate every time, so a deleted image disappears at once.
        return cached(request, _or_404(service.preview, image_id), "image/jpeg", "private, no-cache")

    @app.get(
        "/v1/images/{image_id}/why",
        responses=refusals(401, 404, 422, 429, 503),
        summary="A heat map: how similar each part of an image is to a query",
    )
    async def why(
        image_id: ImageId,
        query: Annotated[Words, Query()],
        system: Annotated[str, Query(max_length=100, description="empty = the default")] = "",
    ) -> Heatmap:
        name = system or service.system_names[0]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            _HEATMAPS, _or_404, lambda one: service.heatmap(one, query, name), image_id
        )

    @app.delete(
        "/v1/images/{image_id}",
        responses=refusals(401, 403, 404, 429, 503),
        summary="Remove an image from every table and every index, at once",
    )
    async def delete(image_id: ImageId) -> Deleted:
        if not config.allow_delete:
            raise ApiError(403, "not_allowed", "This server deletes no images (see `serve.allow_delete`).")
        num_rows = await asyncio.to_thread(_or_404, service.delete, image_id)
        return Deleted(image_id=image_id, num_rows=num_rows)


def _or_404(call: Callable[[str], Result], image_id: str) -> Result:
    """The result of `call(image_id)`. Raises ApiError (404) for a malformed or unknown image_id."""
    try:
        if IMAGE_ID.fullmatch(image_id):
            return call(image_id)
    except KeyError:
        pass
    raise ApiError(404, "unknown_image", "There is no image with this id.", "image_id")
