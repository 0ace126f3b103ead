"""One JSON line for every request and every error, on stderr, which Ray keeps among its worker logs.

    {"time": ..., "level": "INFO", "logger": "kallos.access", "message": "request", "request_id": ...,
     "method": "POST", "path": "/v1/search", "status": 200, "milliseconds": 21.4, "client": "key ann", ...}

Ray Serve's own JSON logs (`LoggingConfig(encoding="JSON")`) tell of its requests too, but neither who asked
nor what was answered: those fields are ours to add.
"""

import hashlib
import json
import logging
import re
import secrets
import sys
import uuid
from contextvars import ContextVar
from datetime import UTC, datetime
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.http import errors
from serve_app.http.metrics import Metrics

LOGGERS = ("kallos", "serve_app")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
MAX_PATH_CHARS = 200
CLIENT_CLOSED = 499  # what is logged where the client was gone before the answer began
# The fields of a log record that logging itself sets: all others were given with `extra`.
OWN_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime"}

access = logging.getLogger("kallos.access")
request_id: ContextVar[str] = ContextVar("request_id", default="")

# An address is logged as its keyed hash: one client's requests belong together while this process lives, and
# nobody can find the address by trying all of them.
_SALT = secrets.token_bytes(16)


class JsonFormatter(logging.Formatter):
    """A record as a JSON object in one line: message, fields given with `extra`, an error's stack."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id.get(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in OWN_FIELDS}
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure() -> None:
    """Send the lines of this package to stderr as JSON. Called in each process that answers requests."""
    # Serve may replace sys.stderr by a logger of its own, which would wrap each line into another one.
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(JsonFormatter())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)


class RequestLog:
    """Gives each request an id, counts it, writes its line, and answers what the routes fail to.

    Routes add fields to the line through the dict `request.state.log`; its `queries`, what people typed, is
    written only with `log_queries`.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, *, log_queries: bool = False, proxy_returns_id: bool = False
    ) -> None:
        """`proxy_returns_id`: the proxy before us returns the `X-Request-ID` that it passes on."""
        self.app = app
        self.metrics = metrics
        self.log_queries = log_queries
        self.proxy_returns_id = proxy_returns_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        returns_id = not (self.proxy_returns_id and name == given)
        request_id.set(name)
        scope.setdefault("state", {}).update(request_id=name, log={})
        status, started = CLIENT_CLOSED, perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if returns_id:
                    MutableHeaders(scope=message)["X-Request-ID"] = name
            await send(message)

        self.metrics.in_flight(1)
        try:
            await self.app(scope, receive, noted)
        except Exception:
            path = scope["path"][:MAX_PATH_CHARS]
            access.exception("error", extra={"method": scope["method"], "path": path})
            if status != CLIENT_CLOSED:
                raise  # the answer is under way: the server can only break it off
            told = "The server made a mistake; it is in its log."
            await errors.body(500, "internal_error", told)(scope, receive, noted)
        finally:
            self.metrics.in_flight(-1)
            self.metrics.request(_route(scope), status)
            self._write(scope, status, 1000 * (perf_counter() - started))

    def _write(self, scope: Scope, status: int, milliseconds: float) -> None:
        state = scope["state"]
        fields = {
            "method": scope["method"],
            "path": scope["path"][:MAX_PATH_CHARS],
            "status": status,
            "milliseconds": round(milliseconds, 2),
            "client": _client(scope),
        }
        told = dict(state["log"])
        if not self.log_queries:
            told.pop("queries", None)
        access.info("request", extra={**told, **fields})


def _route(scope: Scope) -> str:
    """The template of the route that answered, such as `/v1/images/{image_id}/preview`, else `other`."""
    return getattr(scope.get("route"), "path", "other")


def _client(scope: Scope) -> str:
    if name := scope["state"].get("key_name"):
        return f"key {name}"
    host = (scope.get("client") or ("", 0))[0]
    return "address " + hashlib.blake2s(host.encode(), key=_SALT, digest_size=8).hexdigest()
