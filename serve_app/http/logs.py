"""Writes one JSON line per request and per error to stderr, which Ray saves in its worker logs.

    {"time": ..., "level": "INFO", "logger": "kallos.access", "message": "request", "request_id": ...,
     "method": "POST", "path": "/v1/search", "status": 200, "milliseconds": 21.4, "client": "key ann", ...}

Ray Serve's own JSON logs (`LoggingConfig(encoding="JSON")`) also list requests, but neither the client nor
the fields of the answer.
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

from cluster.compat.errors import lance_reason, storage_fault
from cluster.errors import UserError
from serve_app.http.error_responses import error_response
from serve_app.http.middleware import HttpMiddleware
from serve_app.metrics import Metrics

LOGGERS = ("kallos", "serve_app")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
MAX_PATH_CHARS = 200
CLIENT_CLOSED = 499  # logged when the client disconnected before the response began
# The fields that logging itself sets on a record. All others come from `extra`.
STANDARD_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime"}

access = logging.getLogger("kallos.access")
request_id: ContextVar[str] = ContextVar("request_id", default="")

# Addresses are logged as keyed hashes. The requests of one client can be matched while this process runs, but
# nobody can find the address by trying all of them.
_SALT = secrets.token_bytes(16)


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: the message, the fields from `extra`, the stack of an error."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id.get(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in STANDARD_FIELDS}
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure() -> None:
    """Send the log lines of this package to stderr as JSON. Called once in each serving process."""
    # Serve may replace sys.stderr with its own logger, which would wrap each line in another one.
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(JsonFormatter())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)


class RequestLog(HttpMiddleware):
    """Gives each request an id, counts it, logs it, and answers exceptions.

    A fault of the store is answered with 503, any other exception with 500.

    Routes add fields to the log line through the dict `request.state.log`. Its field `queries`, what people
    typed, is written only with `log_queries`.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, *, log_queries: bool = False, proxy_returns_id: bool = False
    ) -> None:
        """`proxy_returns_id`: the proxy itself returns the `X-Request-ID` of a request that has one."""
        super().__init__(app)
        self.metrics = metrics
        self.log_queries = log_queries
        self.proxy_returns_id = proxy_returns_id

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        returns_id = not (self.proxy_returns_id and name == given)
        request_id.set(name)
        scope.setdefault("state", {}).update(request_id=name, log={})
        status, started = CLIENT_CLOSED, perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if returns_id:
                    MutableHeaders(scope=message)["X-Request-ID"] = name
            await send(message)

        self.metrics.in_flight(1)
        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            path = scope["path"][:MAX_PATH_CHARS]
            access.exception("error", extra={"method": scope["method"], "path": path})
            if status != CLIENT_CLOSED:
                raise  # the response has begun: the server can only break the connection
            response = error_response(500, "internal_error", "The server failed; the error is in its log.")
            # A UserError here is about the store too: those about the request have become an ApiError.
            if isinstance(error, UserError) or lance_reason(error) or storage_fault(error):
                message = "The store cannot be read or written now; the reason is in the server's log."
                response = error_response(503, "not_ready", message)
            await response(scope, receive, send_with_id)
        finally:
            self.metrics.in_flight(-1)
            self.metrics.request(_route(scope), status)
            self._write(scope, status, 1000 * (perf_counter() - started))

    def _write(self, scope: Scope, status: int, milliseconds: float) -> None:
        state = scope["state"]
        extra = dict(state["log"])
        if not self.log_queries:
            extra.pop("queries", None)
        extra |= {
            "method": scope["method"],
            "path": scope["path"][:MAX_PATH_CHARS],
            "status": status,
            "milliseconds": round(milliseconds, 2),
            "client": _client(scope),
        }
        access.info("request", extra=extra)


def _route(scope: Scope) -> str:
    """The template of the matched route, such as `/v1/images/{image_id}/preview`, or `other`."""
    return getattr(scope.get("route"), "path", "other")


def _client(scope: Scope) -> str:
    if name := scope["state"].get("key_name"):
        return f"key {name}"
    host = (scope.get("client") or ("", 0))[0]
    return "address " + hashlib.blake2s(host.encode(), key=_SALT, digest_size=8).hexdigest()
