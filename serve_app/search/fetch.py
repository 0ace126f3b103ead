"""Fetching a public URL that a stranger names, and nothing that only this machine's network can reach.

The host is resolved once, every address is checked, and the connection goes to a checked address: the name
cannot mean another one by then (DNS rebinding). Redirects are not followed, a proxy of the environment is not
used.
"""

import asyncio
import ipaddress
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import httpx

from serve_app.http.errors import ApiError

PORTS = {None, 80, 443}  # none = the scheme's own
FIELD = "image.url"
# Unicast that is routed on the internet (IANA gave out no other), and the forms that carry an IPv4 address.
GLOBAL_V6 = ipaddress.ip_network("2000::/3")
NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Names that nobody resolves in time hold up these threads, and no others.
_RESOLVERS = ThreadPoolExecutor(4, "resolve-url")


async def fetch(url: str, *, max_bytes: int) -> bytes:
    """The bytes at a public http(s) URL. How long it may take is the caller's business.

    Raises:
        ApiError: 413 `image_too_large`; 422 `bad_url`, `url_not_public`, `url_redirects`, or `url_failed`.
    """
    target = _parsed(url)
    address = await _public_address(target)
    try:
        # Certificates are checked against the name, though the connection goes to an address.
        async with (
            httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=None, verify=_tls()) as client,
            client.stream(
                "GET",
                target.copy_with(host=address),
                headers={"Host": target.netloc.decode("ascii"), "Accept-Encoding": "identity"},
                extensions={"sni_hostname": target.raw_host.decode("ascii")},
            ) as response,
        ):
            return await _body(response, max_bytes)
    except (httpx.HTTPError, OSError) as error:
        raise ApiError(
            422, "url_failed", f"The URL could not be fetched ({type(error).__name__}).", FIELD
        ) from None


@cache
def _tls() -> ssl.SSLContext:
    """The certificates to trust: reading them takes too long to do it for every image."""
    return httpx.create_ssl_context(trust_env=False)


def is_public(address: str) -> bool:
    """Whether an IP address is global unicast, also when an IPv6 address only wraps an IPv4 one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6:
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is None:
            return ip in GLOBAL_V6 and ip.is_global
        ip = inner
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _parsed(url: str) -> httpx.URL:
    """The URL as httpx understands it, which is what will be asked for."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise ApiError(422, "bad_url", "`image.url` is not a URL.", FIELD) from None
    if parsed.scheme not in ("http", "https") or not parsed.host or "%" in parsed.host:
        raise ApiError(422, "bad_url", "`image.url` must begin with http:// or https:// and a host.", FIELD)
    if parsed.userinfo or parsed.port not in PORTS:
        raise ApiError(422, "bad_url", "`image.url` may have no user and no port but 80 and 443.", FIELD)
    return parsed


async def _public_address(url: httpx.URL) -> str:
    """The address to connect to. Where one of the host's addresses is not public, none is used."""
    host = url.raw_host.decode("ascii")
    # The same words for a name that is unknown: nobody may find out the names of our network here.
    refusal = ApiError(422, "url_not_public", "The host of `image.url` has no public address.", FIELD)
    try:
        found = await asyncio.get_running_loop().run_in_executor(
            _RESOLVERS, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        )
    except (OSError, UnicodeError):
        raise refusal from None
    addresses = [entry[4][0] for entry in found]
    if not addresses or not all(map(is_public, addresses)):
        raise refusal
    return addresses[0]


async def _body(response: httpx.Response, max_bytes: int) -> bytes:
    if response.is_redirect:
        raise ApiError(422, "url_redirects", "The URL leads to another one: give that one itself.", FIELD)
    if response.status_code != 200:
        raise ApiError(422, "url_failed", f"The URL answers with status {response.status_code}.", FIELD)
    data = bytearray()
    async for part in response.aiter_raw():
        data += part
        if len(data) > max_bytes:
            raise ApiError(413, "image_too_large", f"The file is larger than {max_bytes} bytes.", FIELD)
    return bytes(data)
