"""Returns 503 while no replica is up. Without it, Serve's own proxy would keep the request waiting.

HAProxy passes requests to Serve's own proxy only when no replica is up. In that proxy, Serve installs
the middlewares that `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names.
"""

import os

from ray import serve
from ray.serve.exceptions import RayServeException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

RETRY_AFTER_S = 2
BODY = {
    "error": {
        "code": "no_replica",
        "message": f"The search is starting: try again in {RETRY_AFTER_S} s.",
        "field": "",
    }
}
SERVE_PATHS = "/-/"  # health checks by HAProxy
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Unavailable:
    """Responds with 503 to every request except Serve's own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(SERVE_PATHS):
            await self.app(scope, receive, send)
            return
        headers = {"Retry-After": str(RETRY_AFTER_S), **SECURITY_HEADERS}
        await JSONResponse(BODY, status_code=503, headers=headers)(scope, receive, send)


def middlewares() -> list[Middleware]:
    """`Unavailable` for the proxy behind HAProxy, nothing for a replica, whose HTTP server calls this too.

    Without HAProxy, Serve's own proxy handles all requests and must not refuse them.
    """
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "1":
        return []
    try:
        serve.get_replica_context()
    except RayServeException:
        return [Middleware(Unavailable)]
    return []
