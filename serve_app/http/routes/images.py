"""Single images: their preview, which of their parts speak for a query, and their removal."""

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request, Response

from cluster.profile import Serve
from serve_app.http.errors import ApiError
from serve_app.http.models import MAX_QUERY_CHARS, Deleted, Heatmap
from serve_app.http.routes import cached, refusals
from serve_app.search.service import Service

IMAGE_ID = re.compile("[0-9a-f]{64}")
# Maps wait for one another: in the threads of searches they would keep those waiting.
_MAPS = ThreadPoolExecutor(1, "why")
ImageId = Annotated[str, Path(description="sha256 of the image file's bytes, 64 hex characters")]


def add(app: FastAPI, service: Service, config: Serve) -> None:
    """Add the routes to the app."""

    @app.get(
        "/v1/images/{image_id}/preview",
        response_class=Response,
        responses={
            200: {"content": {"image/jpeg": {}}},
            304: {"description": "Not modified"},
            **refusals(401, 404, 429),
        },
        summary="A small JPEG of an image",
    )
    def preview(image_id: ImageId, request: Request) -> Response:
        # Asked again every time, so that an image that was deleted is gone at once.
        return cached(request, _known(service.preview, image_id), "image/jpeg", "private, no-cache")

    @app.get(
        "/v1/images/{image_id}/why",
        response_model=Heatmap,
        responses=refusals(401, 404, 422, 429),
        summary="Which parts of an image speak for a query",
    )
    async def why(
        image_id: ImageId,
        query: Annotated[str, Query(min_length=1, max_length=MAX_QUERY_CHARS)],
        system: Annotated[str, Query(max_length=100, description="empty = the default")] = "",
    ) -> Heatmap:
        chosen = system or service.system_names[0]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            _MAPS, _known, lambda one: service.why(one, query, chosen), image_id
        )

    @app.delete(
        "/v1/images/{image_id}",
        response_model=Deleted,
        responses=refusals(401, 403, 404, 429),
        summary="Remove an image from every table and every index, at once",
    )
    async def delete(image_id: ImageId) -> Deleted:
        if not config.allow_delete:
            raise ApiError(403, "not_allowed", "Deleting is switched off here: see `serve.allow_delete`.")
        num_rows = await asyncio.to_thread(_known, service.delete, image_id)
        return Deleted(image_id=image_id, num_rows=num_rows)


def _known(call: Callable[[str], Any], image_id: str) -> Any:
    """What the call says of the image; an id that is none never reaches it. Raises ApiError (404)."""
    try:
        if IMAGE_ID.fullmatch(image_id):
            return call(image_id)
    except KeyError:
        pass
    raise ApiError(404, "unknown_image", "There is no image of that id here.", "image_id")
