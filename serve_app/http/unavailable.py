"""What is answered while no replica can: a 503 at once, where Serve's own proxy would wait without a word.

HAProxy passes requests to the replicas, and to Serve's own proxy behind it only when none is up.
Serve puts what `middlewares` returns before that proxy (`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`).
"""

import os

from ray import serve
from ray.serve.exceptions import RayServeException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.http import errors
from serve_app.http.middleware import SECURITY_HEADERS

RETRY_AFTER_S = 2
SERVES_OWN = "/-/"  # health checks of HAProxy


class Unavailable:
    """Answers every request, Serve's own aside, with a 503."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(SERVES_OWN):
            await self.app(scope, receive, send)
            return
        refusal = errors.body(
            503,
            "no_replica",
            f"The search is starting: ask again in {RETRY_AFTER_S} s.",
            headers={"Retry-After": str(RETRY_AFTER_S), **SECURITY_HEADERS},
        )
        await refusal(scope, receive, send)


def middlewares() -> list[Middleware]:
    """`Unavailable` in the proxy behind HAProxy, nothing in a replica, whose HTTP server asks too.

    Without HAProxy Serve's own proxy is the one that answers: it must not refuse.
    """
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "1":
        return []
    try:
        serve.get_replica_context()
    except RayServeException:
        return [Middleware(Unavailable)]
    return []
