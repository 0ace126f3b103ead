"""ASGI middleware around every route: HEAD, security headers, host or key check, rate limits, body limits."""

import asyncio
import contextlib
import hashlib
import ipaddress
import math
import re
import secrets
import time
from abc import ABC, abstractmethod

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.unavailable import SECURITY_HEADERS
from serve_app.errors import ApiError
from serve_app.http.error_responses import error_response
from serve_app.http.keys import Keyring, is_loopback
from serve_app.models import MAX_SEARCHES

# The page must load before it can ask for a key, and load balancers check health without one.
PUBLIC_PATHS = ("/", "/docs", "/healthz", "/readyz", "/openapi.json")
PUBLIC_FOLDER = "/page/"
BODY_TIMEOUT_S = 30.0
WRONG_KEYS_PER_MINUTE = 60  # from one address, to one replica
NUM_ADDRESS_GROUPS = 16_384
_SALT = secrets.token_bytes(16)  # so that nobody can choose an address that falls into another client's group
IMAGE_PATH = "/v1/search"
JSON_BYTES = 256 * 1024
IMAGE_START = re.compile(rb'"data"\s*+:\s*+"')
HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:[0-9]*)?")  # a name or address, with an optional port


def request_path(scope: Scope) -> str:
    """The path of the request, without the root path under which a proxy serves the app."""
    return scope["path"].removeprefix(scope.get("root_path", "").rstrip("/"))


def is_public(path: str) -> bool:
    """Whether the path needs no key."""
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_FOLDER)


def is_rate_limited(path: str) -> bool:
    """Whether the path counts for the rate limit. Previews do not: a page shows dozens of them."""
    return not is_public(path) and not (path.startswith("/v1/images/") and path.endswith("/preview"))


class HttpMiddleware(ABC):
    """Passes HTTP requests to `handle`, and everything else to the app."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.handle if scope["type"] == "http" else self.app)(scope, receive, send)

    @abstractmethod
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an HTTP request, or pass it on to `self.app`."""


class SecurityHeaders(HttpMiddleware):
    """Adds security headers to every response."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)


class HeadAsGet(HttpMiddleware):
    """Answers HEAD as GET, with the same headers and no body."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        get = {**scope, "method": "GET"}

        async def send_without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self.app(get, receive, send_without_body)
        scope["route"] = get.get("route")  # for the metrics


class HostCheck(HttpMiddleware):
    """Refuses requests whose `Host` is not a name of this machine. For a server without keys.

    A page on another site can point its own name at this address (DNS rebinding); for the browser both are
    then the same origin. But the browser still sends that name as `Host`. Health checks may send none.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = self.app
        if not _is_own_host(Headers(scope=scope).get("host", "")):
            message = (
                "Without --keys-file this server only answers at 127.0.0.1, [::1] and localhost: "
                "use one of these, or start it with --keys-file."
            )
            response = error_response(421, "wrong_host", message, "host")
        await response(scope, receive, send)


class KeyCheck(HttpMiddleware):
    """Requires `Authorization: Bearer <key>`; puts the name of the key into `request.state.key_name`.

    After too many requests without a valid key, an address is blocked: its keys are no longer checked. Behind
    a proxy whose `X-Forwarded-For` is not trusted, all clients have the address of this machine. From there,
    valid keys are still accepted: otherwise one client could lock out all others.
    """

    def __init__(self, app: ASGIApp, keyring: Keyring, wrong_per_minute: int = WRONG_KEYS_PER_MINUTE) -> None:
        super().__init__(app)
        self.keyring = keyring
        self.limit = RateLimitItemPerMinute(wrong_per_minute)
        self.window = MovingWindowRateLimiter(MemoryStorage())

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = self.app if is_public(request_path(scope)) else self._check(scope) or self.app
        await response(scope, receive, send)

    def _check(self, scope: Scope) -> JSONResponse | None:
        """The refusal of a request without a valid key, None for a valid one."""
        group = rate_limit_group(scope)
        blocked = not self.window.test(self.limit, group)
        if blocked and not is_loopback(_address(scope)):
            return self._refuse_blocked(group)
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        key = key.strip()
        name = self.keyring.name_of(key) if key and scheme.lower() == "bearer" else ""
        if name:
            scope.setdefault("state", {})["key_name"] = name
            return None
        if blocked:
            return self._refuse_blocked(group)
        self.window.hit(self.limit, group)
        code, message = "key_wrong", "This key is not valid."
        if not key:
            code, message = "key_missing", "This server requires a key: send `Authorization: Bearer <key>`."
        headers = {"WWW-Authenticate": "Bearer"}
        return error_response(401, code, message, "authorization", headers)

    def _refuse_blocked(self, group: str) -> JSONResponse:
        message = f"More than {self.limit.amount} requests without a valid key within a minute"
        return _too_many(self.window, self.limit, group, message)


class RateLimit(HttpMiddleware):
    """Limits the requests per minute of each API key, or of each address if there are no keys.

    Each process counts alone. Behind a proxy all clients have one address: without keys they share a limit.
    """

    def __init__(self, app: ASGIApp, per_minute: int) -> None:
        super().__init__(app)
        self.limit = RateLimitItemPerMinute(per_minute)
        self.window = MovingWindowRateLimiter(MemoryStorage())

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        group = rate_limit_group(scope)
        response = self.app
        if is_rate_limited(request_path(scope)) and not self.window.hit(self.limit, group):
            message = f"More than {self.limit.amount} requests within a minute"
            response = _too_many(self.window, self.limit, group, message)
        await response(scope, receive, send)


class BodyLimit(HttpMiddleware):
    """Refuses large bodies, and those that have not arrived after `timeout_s` seconds.

    Parsing and validating a body blocks all other requests, and is fast for a large body only if it consists
    of long strings. So only the uploaded images of a search may take more than `JSON_BYTES`.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float = BODY_TIMEOUT_S) -> None:
        """`max_bytes`: limit of the body of a search, with its images."""
        super().__init__(app)
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        takes_images = request_path(scope) == IMAGE_PATH
        max_bytes = self.max_bytes if takes_images else JSON_BYTES
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > max_bytes:
            await error_response(*_too_large(max_bytes))(scope, receive, send)
            return
        deadline_s = asyncio.get_running_loop().time() + self.timeout_s
        body, complete, next_check = bytearray(), False, JSON_BYTES

        async def receive_limited() -> Message:
            nonlocal complete, next_check
            if complete:  # only a disconnect can follow, with no deadline
                return await receive()
            try:
                async with asyncio.timeout_at(deadline_s):
                    message = await receive()
            except TimeoutError:
                reason = f"The body did not arrive within {self.timeout_s:g} s."
                raise ApiError(408, "body_too_slow", reason) from None
            body.extend(message.get("body", b""))
            complete = not message.get("more_body", False)
            if len(body) > max_bytes:
                raise ApiError(*_too_large(max_bytes))
            if complete or len(body) > next_check:
                if len(body) - _image_bytes(body) > JSON_BYTES:
                    raise ApiError(*_too_large(JSON_BYTES, " besides `image.data`"))
                next_check = 2 * len(body)  # all checks together take no longer than two of the whole body
            return message

        await self.app(scope, receive_limited, send)


def _image_bytes(body: bytearray) -> int:
    """Number of bytes of the images in a JSON body, which may be incomplete."""
    num_bytes = end = 0
    for _ in range(MAX_SEARCHES if len(body) > JSON_BYTES else 0):
        if not (start := IMAGE_START.search(body, end)):
            break
        end = body.find(b'"', start.end())
        end = len(body) if end < 0 else end
        num_bytes += end - start.end()
    return num_bytes


def _too_large(max_bytes: int, what: str = "") -> tuple[int, str, str]:
    return 413, "body_too_large", f"The body has more than {max_bytes:,} bytes{what}."


def document_keys(app: FastAPI) -> None:
    """Describe in the OpenAPI document which requests need a key."""
    build = app.openapi

    def with_keys() -> dict:
        document = build()
        scheme = {"type": "http", "scheme": "bearer", "description": "a key from the server's keys file"}
        document.setdefault("components", {})["securitySchemes"] = {"key": scheme}
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if is_public(path) else [{"key": []}]
        return document

    app.openapi = with_keys


def document_host(app: FastAPI) -> None:
    """Describe in the OpenAPI document that any request may be refused because of its host."""
    build = app.openapi
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}

    def with_host() -> dict:
        document = build()
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"]["421"] = {"description": "Misdirected Request", "content": content}
        return document

    app.openapi = with_host


def _is_own_host(host: str) -> bool:
    """Whether a `Host` header is missing or names this machine."""
    match = HOST.fullmatch(host.lower())
    return not host or (match is not None and is_loopback(match[1]))


def _too_many(
    window: MovingWindowRateLimiter, limit: RateLimitItemPerMinute, group: str, message: str
) -> JSONResponse:
    reset_at = window.get_window_stats(limit, group).reset_time
    wait_s = max(1, math.ceil(reset_at - time.time()))
    headers = {"Retry-After": str(wait_s)}
    return error_response(429, "too_many_requests", f"{message}: try again in {wait_s} s.", headers=headers)


def rate_limit_group(scope: Scope) -> str:
    """The name under which a request counts for a limit: its API key, or without one a group of addresses.

    Addresses are hashed into a fixed number of groups, because the limiter keeps every name for good. An IPv6
    address counts as its /64 network, because one client can use any address of its network.
    """
    if name := scope.get("state", {}).get("key_name"):
        return f"key {name}"
    name = host = _address(scope)
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        name = str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else host
    digest = hashlib.blake2s(name.encode(), key=_SALT, digest_size=8).digest()
    return f"addresses {int.from_bytes(digest) % NUM_ADDRESS_GROUPS}"


def _address(scope: Scope) -> str:
    return (scope.get("client") or ("", 0))[0]
