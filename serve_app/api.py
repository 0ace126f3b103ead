"""The HTTP face of the search: routes, security headers, the page. Knows a `Service`, not Ray."""

import hashlib
import re
from pathlib import Path

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app import errors
from serve_app.errors import ApiError, ErrorBody
from serve_app.models import (
    Examples,
    Health,
    SearchResponse,
    SearchResult,
    SystemHealth,
    Timings,
    search_request,
)
from serve_app.service import Found, Service

PAGE = Path(__file__).resolve().parent / "page"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
MAX_BODY_BYTES = 64 * 1024
IMAGE_ID = re.compile("[0-9a-f]{64}")
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """ASGI middleware: security headers on every answer, and no body above `MAX_BODY_BYTES`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        num_bytes = 0

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > MAX_BODY_BYTES:
                raise ApiError(413, "body_too_large", f"The body is larger than {MAX_BODY_BYTES} bytes.")
            return message

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        await self.app(scope, counted, guarded)


def make_api(service: Service, max_k: int) -> FastAPI:
    """The ASGI app over a service; `max_k` bounds what one request may ask for."""
    app = FastAPI(
        title="Kallos",
        version="1",
        summary="Image search aligned with what people find beautiful.",
        docs_url=None,  # FastAPI's own pages load scripts from another host: /docs is ours
        redoc_url=None,
    )
    app.add_middleware(Guard)
    errors.install(app)
    _add_search(app, service, max_k)
    _add_images(app, service)
    _add_state(app, service, max_k)
    _add_page(app)
    return app


def _add_search(app: FastAPI, service: Service, max_k: int) -> None:
    request_type = search_request(list(service.systems), max_k)

    @app.post(
        "/v1/search",
        response_model=SearchResponse,
        responses=_refusals(400, 413, 415, 422),
        dependencies=[Depends(_require_json)],
        summary="Find images for a query",
    )
    async def search(body: request_type, request: Request, response: Response) -> SearchResponse:
        found = await service.search(body.system, body.query, body.k)
        response.headers["Cache-Control"] = "no-store"
        return _answer(body, found, root=request.scope.get("root_path", ""))


def _add_images(app: FastAPI, service: Service) -> None:
    @app.get(
        "/v1/images/{image_id}/preview",
        response_class=Response,
        responses={
            200: {"content": {"image/jpeg": {}}},
            304: {"description": "Not modified"},
            **_refusals(404),
        },
        summary="A small JPEG of an image",
    )
    def preview(image_id: str, request: Request) -> Response:
        try:
            jpeg = service.preview(image_id) if IMAGE_ID.fullmatch(image_id) else None
        except KeyError:
            jpeg = None
        if jpeg is None:
            raise ApiError(404, "unknown_image", "There is no image of that id here.", "image_id")
        return _cached(request, jpeg, "image/jpeg", "private, max-age=86400")


def _add_state(app: FastAPI, service: Service, max_k: int) -> None:
    @app.get("/healthz", response_model=Health, summary="Whether the server answers, and with which encoders")
    async def healthz() -> JSONResponse:
        systems = {
            alias: SystemHealth(
                encoder=system.record.encoder,
                parent=system.record.parent,
                num_rows=system.num_rows,
                recall_at_10=system.recall_at_10,
            )
            for alias, system in service.systems.items()
        }
        health = Health(systems=systems, max_k=max_k)
        return JSONResponse(health.model_dump(), headers={"Cache-Control": "no-store"})

    @app.get("/v1/examples", response_model=Examples, summary="Queries worth a try on these images")
    async def examples() -> Examples:
        return Examples(queries=service.examples)


def _add_page(app: FastAPI) -> None:
    """The page at /, that of the API at /docs, their files: read once, so that no other can be asked for."""
    files = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.suffix in MEDIA_TYPES}

    def send(request: Request, name: str) -> Response:
        if name not in files:
            raise ApiError(404, "not_found", f"There is no file {name!r} here.")
        return _cached(request, files[name], MEDIA_TYPES[Path(name).suffix], "no-cache")

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return send(request, "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return send(request, "docs.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(name: str, request: Request) -> Response:
        return send(request, name)


def _require_json(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(
            415,
            "wrong_content_type",
            f"Send application/json, not {media_type or 'nothing'}.",
            "content-type",
        )


def _answer(body, found: Found, root: str) -> SearchResponse:
    """The answer to a search; `root` is the path that a proxy before us has cut off."""
    results = [
        SearchResult(**row, preview_url=f"{root}/v1/images/{row['image_id']}/preview") for row in found.rows
    ]
    timings = Timings(**{step: round(value, 3) for step, value in found.timings_ms.items()})
    return SearchResponse(
        query=body.query, system=body.system, encoder=found.encoder, results=results, timings_ms=timings
    )


def _cached(request: Request, content: bytes, media_type: str, cache_control: str) -> Response:
    """The content, or 304 when the client holds it already."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": cache_control}
    held = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in held or "*" in held:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


def _refusals(*statuses: int) -> dict:
    return {status: {"model": ErrorBody} for status in statuses}
