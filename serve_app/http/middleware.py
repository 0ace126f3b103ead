"""ASGI middleware around every route: security headers, host or keys, a rate limit, limits of the body.

Refusals of the middleware have the form of all others: see `errors.body`.
"""

import asyncio
import ipaddress
import math
import re
import time

from fastapi import FastAPI
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.http import errors
from serve_app.http.errors import ApiError
from serve_app.http.keys import Keyring, is_loopback

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
# What a page must get before it can ask for a key, and what a load balancer asks all the time.
OPEN_PATHS = ("/", "/docs", "/healthz", "/readyz", "/openapi.json")
OPEN_FOLDER = "/page/"
BODY_TIMEOUT_S = 30.0
HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:[0-9]*)?")  # a name or address, perhaps a port


def path_of(scope: Scope) -> str:
    """The path below the one that a proxy before us has cut off."""
    return scope["path"].removeprefix(scope.get("root_path", "").rstrip("/"))


def is_open(path: str) -> bool:
    """Whether the path is answered without a key."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


def is_counted(path: str) -> bool:
    """Whether the path falls under the rate limit: not the previews, which a page shows by the dozen."""
    return not is_open(path) and not (path.startswith("/v1/images/") and path.endswith("/preview"))


class SecurityHeaders:
    """Security headers on every answer, whoever made it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        await self.app(scope, receive, guarded)


class HostCheck:
    """Answers only what is asked of this machine by a name of its own: for a server without keys.

    A page of elsewhere may let its name lead here (DNS rebinding) and would then be of the same origin; what
    it cannot change is the name, which the browser sends as `Host`. Health checks may come without one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_own(Headers(scope=scope).get("host", "")):
            await self.app(scope, receive, send)
            return
        told = "Without --keys-file only 127.0.0.1, [::1] and localhost are answered: ask there, or give one."
        await errors.body(421, "wrong_host", told, "host")(scope, receive, send)


class KeyCheck:
    """Asks for `Authorization: Bearer <key>`; the key's name lands in `request.state.key_name`."""

    def __init__(self, app: ASGIApp, keyring: Keyring) -> None:
        self.app = app
        self.keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_open(path_of(scope)):
            await self.app(scope, receive, send)
            return
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        key = key.strip()
        name = self.keyring.name_of(key) if key and scheme.lower() == "bearer" else ""
        if name:
            scope.setdefault("state", {})["key_name"] = name
            await self.app(scope, receive, send)
        elif key:
            await _unauthorized("key_wrong", "This key is not known here.")(scope, receive, send)
        else:
            told = "This server answers only with a key: send `Authorization: Bearer <key>`."
            await _unauthorized("key_missing", told)(scope, receive, send)


class RateLimit:
    """At most so many requests of one key, or else of one address, within any minute; in this process.

    Behind a proxy the address is the proxy's: without keys all its clients count together.
    """

    def __init__(self, app: ASGIApp, per_minute: int) -> None:
        self.app = app
        self.limit = RateLimitItemPerMinute(per_minute)
        self.window = MovingWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        who = origin_of(scope)
        if scope["type"] != "http" or not is_counted(path_of(scope)) or self.window.hit(self.limit, who):
            await self.app(scope, receive, send)
            return
        reset = self.window.get_window_stats(self.limit, who).reset_time
        wait_s = max(1, math.ceil(reset - time.time()))
        refusal = errors.body(
            429,
            "too_many_requests",
            f"More than {self.limit.amount} requests within a minute: ask again in {wait_s} s.",
            headers={"Retry-After": str(wait_s)},
        )
        await refusal(scope, receive, send)


class BodyLimit:
    """No body above `max_bytes`, and none that has not arrived whole after `timeout_s` seconds."""

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float = BODY_TIMEOUT_S) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        too_large = (413, "body_too_large", f"The body is larger than {self.max_bytes} bytes.")
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > self.max_bytes:
            await errors.body(*too_large)(scope, receive, send)
            return
        deadline_s = asyncio.get_running_loop().time() + self.timeout_s
        num_bytes, complete = 0, False

        async def limited() -> Message:
            nonlocal num_bytes, complete
            if complete:  # what comes now is that the client has gone, whenever it does
                return await receive()
            try:
                async with asyncio.timeout_at(deadline_s):
                    message = await receive()
            except TimeoutError:
                told = f"The body did not arrive within {self.timeout_s:g} s."
                raise ApiError(408, "body_too_slow", told) from None
            num_bytes += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if num_bytes > self.max_bytes:
                raise ApiError(*too_large)
            return message

        await self.app(scope, limited, send)


def document_keys(app: FastAPI) -> None:
    """Tell in the OpenAPI document that requests need a key, and which do not."""
    plain = app.openapi

    def with_keys() -> dict:
        document = plain()
        scheme = {"type": "http", "scheme": "bearer", "description": "a key of the server's keys file"}
        document.setdefault("components", {})["securitySchemes"] = {"key": scheme}
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if is_open(path) else [{"key": []}]
        return document

    app.openapi = with_keys


def document_host(app: FastAPI) -> None:
    """Tell in the OpenAPI document that every request may be refused for its host."""
    plain = app.openapi
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}

    def with_host() -> dict:
        document = plain()
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"]["421"] = {"description": "Misdirected Request", "content": content}
        return document

    app.openapi = with_host


def _unauthorized(code: str, message: str):
    return errors.body(401, code, message, "authorization", headers={"WWW-Authenticate": "Bearer"})


def _is_own(host: str) -> bool:
    """Whether the `Host` of a request is missing or a name of this machine for itself."""
    named = HOST.fullmatch(host.lower())
    return not host or (named is not None and is_loopback(named[1]))


def origin_of(scope: Scope) -> str:
    """Whose requests count together, whatever they call themselves: the key's, else the address's.

    A site has a whole network of IPv6.
    """
    if name := scope.get("state", {}).get("key_name"):
        return f"key {name}"
    host = (scope.get("client") or ("", 0))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else host
