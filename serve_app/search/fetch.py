"""Fetches a public URL from an untrusted request, but nothing from private networks.

The host is resolved once, all its addresses are checked, and the connection goes to a checked address, so the
name cannot be pointed elsewhere meanwhile (DNS rebinding). Redirects and proxy settings are ignored.
"""

import asyncio
import ipaddress
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import httpx

from serve_app.errors import ApiError

PORTS = {None, 80, 443}  # None = the default port of the scheme
FIELD = "image.url"
# The only unicast range that IANA has assigned, and the range that embeds IPv4 addresses.
GLOBAL_V6 = ipaddress.ip_network("2000::/3")
NAT64 = ipaddress.ip_network("64:ff9b::/96")
# A name that resolves slowly blocks only these threads.
_RESOLVERS = ThreadPoolExecutor(4, "resolve-url")


async def fetch(url: str, *, max_bytes: int) -> bytes:
    """The bytes at a public http(s) URL. The caller sets the time limit.

    Raises:
        ApiError: 413 `image_too_large`; 422 `bad_url`, `url_not_public`, `url_redirects`, or `url_failed`.
    """
    target = _parsed(url)
    address = await _public_address(target)
    try:
        # The connection goes to an address, but the certificate is checked against the name.
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
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        # httpx raises InvalidURL and ValueError for a malformed header of the server, such as Location.
        message = f"The URL could not be fetched ({type(error).__name__})."
        raise ApiError(422, "url_failed", message, FIELD) from None


@cache
def _tls() -> ssl.SSLContext:
    """The trusted certificates, read once because reading them is slow."""
    return httpx.create_ssl_context(trust_env=False)


def is_public(address: str) -> bool:
    """Whether an IP address, or the IPv4 address that an IPv6 address embeds, is global unicast."""
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
    """The URL as httpx, which will fetch it, parses it. Raises ApiError (422 `bad_url`)."""
    try:
        parsed = httpx.URL(url)
        host = parsed.host  # raises UnicodeError for `xn--` names that stand for nothing
    except (httpx.InvalidURL, ValueError):
        raise ApiError(422, "bad_url", "`image.url` is not a URL.", FIELD) from None
    if parsed.scheme not in ("http", "https") or not host or "%" in host:
        raise ApiError(422, "bad_url", "`image.url` must start with http:// or https:// and a host.", FIELD)
    if parsed.userinfo or parsed.port not in PORTS:
        raise ApiError(422, "bad_url", "`image.url` must have no user name and no port but 80 or 443.", FIELD)
    return parsed


async def _public_address(url: httpx.URL) -> str:
    """The address to connect to. Raises ApiError unless all addresses of the host are public."""
    host = url.raw_host.decode("ascii")
    # Unknown names get the same message, so that nobody can probe for names in our network.
    refusal = ApiError(422, "url_not_public", "The host of `image.url` has no public address.", FIELD)
    try:
        entries = await asyncio.get_running_loop().run_in_executor(
            _RESOLVERS, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        )
    except (OSError, UnicodeError):
        raise refusal from None
    addresses = [str(entry[4][0]) for entry in entries]
    if not addresses or not all(map(is_public, addresses)):
        raise refusal
    return addresses[0]


async def _body(response: httpx.Response, max_bytes: int) -> bytes:
    if response.is_redirect:
        raise ApiError(422, "url_redirects", "The URL redirects to another one: send that one.", FIELD)
    if response.status_code != 200:
        raise ApiError(422, "url_failed", f"The URL returned status {response.status_code}.", FIELD)
    data = bytearray()
    async for part in response.aiter_raw():
        data += part
        if len(data) > max_bytes:
            raise ApiError(413, "image_too_large", f"The file is larger than {max_bytes} bytes.", FIELD)
    return bytes(data)
