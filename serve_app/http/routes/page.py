"""The search page at /, the API page at /docs, and their files, read once at startup."""

from pathlib import Path

from fastapi import FastAPI, Request, Response

from serve_app.errors import ApiError
from serve_app.http.routes import cached

PAGE = Path(__file__).resolve().parents[2] / "page"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def add(app: FastAPI) -> None:
    """Add the routes to the app."""
    files = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.suffix in MEDIA_TYPES}

    def send(request: Request, name: str) -> Response:
        if name not in files:
            raise ApiError(404, "not_found", f"There is no file {name!r}.")
        return cached(request, files[name], MEDIA_TYPES[Path(name).suffix], "no-cache")

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return send(request, "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return send(request, "docs.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(name: str, request: Request) -> Response:
        return send(request, name)
