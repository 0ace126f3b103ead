"""The HTTP face of the search: all routes over a `Service`. Knows neither Ray nor models."""

from fastapi import FastAPI

from cluster.profile import Serve
from serve_app import errors
from serve_app.guard import Guard
from serve_app.routes import feedback, images, page, search, state
from serve_app.service import Service

JSON_BYTES = 64 * 1024


def make_api(service: Service, config: Serve) -> FastAPI:
    """The ASGI app over a service, within the limits of the profile's `serve`."""
    app = FastAPI(
        title="Kallos",
        version="1",
        summary="Image search aligned with what people find beautiful.",
        docs_url=None,  # FastAPI's own pages load scripts from another host: /docs is ours
        redoc_url=None,
    )
    # An image comes as base64: four bytes for three.
    app.add_middleware(Guard, max_body_bytes=config.max_upload_bytes * 4 // 3 + JSON_BYTES)
    errors.install(app)
    search.add(app, service, config)
    images.add(app, service, config)
    feedback.add(app, service)
    state.add(app, service, config)
    page.add(app)
    return app
