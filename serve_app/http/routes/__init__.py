"""The routes, by what they are about, and what they share."""

import hashlib

from fastapi import Request, Response

from serve_app.http.errors import ApiError, ErrorBody


def refusals(*statuses: int) -> dict:
    """The documented error answers of a route."""
    return {status: {"model": ErrorBody} for status in statuses}


def require_json(request: Request) -> None:
    """A dependency that refuses bodies of another type."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(
            415,
            "wrong_content_type",
            f"Send application/json, not {media_type or 'nothing'}.",
            "content-type",
        )


def client_of(request: Request) -> str:
    """Who asks: the key that was checked and the client's own name for itself, without both its address.

    Several people may share a page and its key. It keeps an experiment's choice the same for one client and
    counts its events; it proves nothing.
    """
    named = (getattr(request.state, "key_name", ""), request.headers.get("x-kallos-client", "")[:100])
    return " ".join(filter(None, named)) or (request.client.host if request.client else "")


def cached(request: Request, content: bytes, media_type: str, cache_control: str) -> Response:
    """The content, or 304 when the client holds it already."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": cache_control}
    held = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in held or "*" in held:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
