"""Builds the HTTP API: all routes over a `Service`, with their middleware. No model code."""

from fastapi import FastAPI

from cluster.profile import Serve
from serve_app.http import error_responses
from serve_app.http.keys import Keyring, read_keys
from serve_app.http.logs import RequestLog
from serve_app.http.middleware import (
    JSON_BYTES,
    BodyLimit,
    HeadAsGet,
    HostCheck,
    KeyCheck,
    RateLimit,
    SecurityHeaders,
    document_host,
    document_keys,
)
from serve_app.http.routes import feedback, images, page, search, state
from serve_app.metrics import Metrics
from serve_app.search.service import Service


def make_api(
    service: Service, config: Serve, metrics: Metrics | None = None, *, proxy_returns_id: bool = False
) -> FastAPI:
    """The ASGI app over a service, with the limits in the profile's `serve`.

    Args:
        service: answers the requests.
        config: the profile's `serve`.
        metrics: counts the requests, None = new series.
        proxy_returns_id: see `RequestLog`.

    Raises:
        UserError: the keys file is invalid.
    """
    app = FastAPI(
        title="Kallos",
        version="1",
        summary="Image search aligned with what people find beautiful.",
        docs_url=None,  # FastAPI's own pages load scripts from other hosts; /docs is ours
        redoc_url=None,
    )
    error_responses.install(app)
    search.add(app, service, config)
    images.add(app, service, config)
    feedback.add(app, service)
    state.add(app, service, config)
    page.add(app)
    _add_checks(app, config)
    app.add_middleware(HeadAsGet)
    app.add_middleware(
        RequestLog,
        metrics=metrics or Metrics(),
        log_queries=config.log_queries,
        proxy_returns_id=proxy_returns_id,
    )
    app.add_middleware(SecurityHeaders)
    return app


def _add_checks(app: FastAPI, config: Serve) -> None:
    """Check keys or host, then the rate limit, then the body. The middleware added last runs first."""
    # Base64 encodes three bytes of an image as four.
    app.add_middleware(BodyLimit, max_bytes=config.max_upload_bytes * 4 // 3 + JSON_BYTES)
    if config.requests_per_minute:
        app.add_middleware(RateLimit, per_minute=config.requests_per_minute)
    if config.keys_file:
        app.add_middleware(KeyCheck, keyring=Keyring(read_keys(config.keys_file)))
        document_keys(app)
    else:
        app.add_middleware(HostCheck)
        document_host(app)
