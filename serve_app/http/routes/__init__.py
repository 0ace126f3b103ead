"""The routes, one module per subject, and the helpers that they share."""

import hashlib

from fastapi import Request, Response

from serve_app.errors import ApiError
from serve_app.models import ErrorBody


def refusals(*statuses: int) -> dict:
    """The documented error responses of a route."""
    return {status: {"model": ErrorBody} for status in statuses}


def require_json(request: Request) -> None:
    """A dependency that refuses bodies of another content type."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        message = f"Send the body as application/json, not {media_type or 'without a content type'}."
        raise ApiError(415, "wrong_content_type", message, "content-type")


def client_name(request: Request) -> str:
    """The client: the name of its key and the name that it sends; its address if it has neither.

    Several people may share a page and its key. The name keeps a client in one arm of an experiment, and its
    events are limited by name. It authenticates nobody.
    """
    names = (getattr(request.state, "key_name", ""), request.headers.get("x-kallos-client", "")[:100])
    return " ".join(filter(None, names)) or (request.client.host if request.client else "")


def cached(request: Request, content: bytes, media_type: str, cache_control: str) -> Response:
    """The content, or 304 if the client has it already."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": cache_control}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
