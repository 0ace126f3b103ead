"""The HTTP face of the search: all routes over a `Service`. Knows no models."""

from fastapi import FastAPI

from cluster.profile import Serve
from serve_app.http import errors
from serve_app.http.keys import Keyring, read_keys
from serve_app.http.logs import RequestLog
from serve_app.http.metrics import Metrics
from serve_app.http.middleware import (
    BodyLimit,
    HostCheck,
    KeyCheck,
    RateLimit,
    SecurityHeaders,
    document_host,
    document_keys,
)
from serve_app.http.routes import feedback, images, page, search, state
from serve_app.search.service import Service

JSON_BYTES = 64 * 1024


def make_api(
    service: Service, config: Serve, metrics: Metrics | None = None, *, proxy_returns_id: bool = False
) -> FastAPI:
    """The ASGI app over a service, within the limits of the profile's `serve`.

    Args:
        service: what answers.
        config: the profile's `serve`.
        metrics: where requests are counted, none = series of its own.
        proxy_returns_id: see `RequestLog`.

    Raises:
        UserError: the keys file is wrong.
    """
    app = FastAPI(
        title="Kallos",
        version="1",
        summary="Image search aligned with what people find beautiful.",
        docs_url=None,  # FastAPI's own pages load scripts from another host: /docs is ours
        redoc_url=None,
    )
    errors.install(app)
    search.add(app, service, config)
    images.add(app, service, config)
    feedback.add(app, service)
    state.add(app, service, config)
    page.add(app)
    _guard(app, config)
    app.add_middleware(
        RequestLog,
        metrics=metrics or Metrics(),
        log_queries=config.log_queries,
        proxy_returns_id=proxy_returns_id,
    )
    app.add_middleware(SecurityHeaders)
    return app


def _guard(app: FastAPI, config: Serve) -> None:
    """What stands before the routes; added last, asked first: keys or host, rate limit, the body's."""
    # An image comes as base64: four bytes for three.
    app.add_middleware(BodyLimit, max_bytes=config.max_upload_bytes * 4 // 3 + JSON_BYTES)
    if config.requests_per_minute:
        app.add_middleware(RateLimit, per_minute=config.requests_per_minute)
    if config.keys_file:
        app.add_middleware(KeyCheck, keyring=Keyring(read_keys(config.keys_file)))
        document_keys(app)
    else:
        app.add_middleware(HostCheck)
        document_host(app)
