"""Uploaded images: read like ingested ones, and URLs that cannot reach the server's private network."""

import asyncio
import base64
import http.server
import socket
import threading
import time

import httpx
import numpy as np
import pytest
from pictures import encoded, gradient, readable, rotated_by_exif, unreadable

from actors.images import Fit, pixels, read_for
from cluster.profile import Serve
from serve_app.errors import ApiError
from serve_app.models import ImageInput
from serve_app.search import fetch, uploads

PIXEL = encoded(gradient(40, 30), "PNG")
FIT = Fit(24, 32, resize_mode="squash")


@pytest.fixture(autouse=True)
def no_external_connections(monkeypatch):
    """Fails a test that connects to another machine."""
    connect = asyncio.SelectorEventLoop.sock_connect

    async def connect_locally(self, sock, address):
        if address[0] not in ("127.0.0.1", "::1"):
            raise AssertionError(f"the test connects to {address}")
        return await connect(self, sock, address)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", connect_locally)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def read(*, data=None, url=None, **settings):
    config = Serve(**{"url_images": True, "upload_timeout_s": 20.0, **settings})
    return asyncio.run(uploads.read_pixels(ImageInput(data=data, url=url), FIT, config))


def ingested(data: bytes) -> np.ndarray:
    """The pixels that `kallos ingest` reads from the file."""
    return pixels(read_for(data, FIT, preview_px=256).image, FIT)


def refused(status, code, **given) -> str:
    """Check that the image is refused with this status and code; returns the message."""
    with pytest.raises(ApiError) as refusal:
        read(**given)
    assert (refusal.value.status_code, refusal.value.code) == (status, code), refusal.value.detail
    assert refusal.value.field == ("image.url" if given.get("url") else "image.data")
    assert "\n" not in refusal.value.detail and refusal.value.detail.endswith(".")
    return refusal.value.detail


@pytest.mark.parametrize("name", readable())
def test_unusual_formats_are_read_as_ingest_reads_them(name):
    data = readable()[name]
    np.testing.assert_array_equal(read(data=b64(data)), ingested(data))


@pytest.mark.parametrize("data", [rotated_by_exif(), encoded(gradient(3000, 2400), "JPEG")])
def test_rotated_and_large_images_are_read_as_ingest_reads_them(data):
    """EXIF rotation is applied, and a large JPEG is decoded at a smaller scale."""
    read_pixels = read(data=b64(data))
    assert read_pixels.shape == (3, 24, 32) and read_pixels.dtype == np.uint8
    np.testing.assert_array_equal(read_pixels, ingested(data))


@pytest.mark.parametrize("name", unreadable())
def test_hostile_files_are_refused_with_the_reason(name):
    data, _ = unreadable()[name]
    assert refused(422, "unusable_image", data=b64(data)).startswith("The image cannot be used: ")


def test_image_with_too_many_pixels_is_refused():
    assert "1,000 pixels" in refused(422, "unusable_image", data=b64(PIXEL), max_upload_pixels=1000)


@pytest.mark.parametrize(
    "data", ["%%%", "data:image/png;base64," + b64(PIXEL), b64(PIXEL) + "\n", b64(PIXEL)[:-1], "ä" * 8, "A"]
)
def test_invalid_base64_is_refused(data):
    refused(422, "bad_base64", data=data)


@pytest.mark.parametrize("spare", [-1, 0])
def test_size_limit_applies_to_the_decoded_file(spare):
    limit = len(PIXEL) + spare
    if spare < 0:
        assert str(limit) in refused(413, "image_too_large", data=b64(PIXEL), max_upload_bytes=limit)
    else:
        assert read(data=b64(PIXEL), max_upload_bytes=limit).shape == (3, 24, 32)


@pytest.mark.parametrize("step", ["read_for", "pixels"])
def test_image_that_takes_too_long_to_read_is_refused(monkeypatch, step):
    release = threading.Event()
    monkeypatch.setattr(uploads, step, lambda *args, **settings: release.wait(10))
    started = time.perf_counter()
    try:
        assert "0.1 s" in refused(422, "image_too_slow", data=b64(PIXEL), upload_timeout_s=0.1)
        assert time.perf_counter() - started < 5
    finally:
        release.set()


# ---- URLs


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a picture, redirects, endless bytes; `requests` records the path and host of every request."""

    requests: list  # set for each server

    def do_GET(self):
        self.requests.append((self.path, self.headers["Host"]))
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/picture")
            self.end_headers()
            return
        self.send_response(404 if self.path == "/nothing" else 200)
        self.end_headers()
        if self.path == "/picture":
            self.wfile.write(PIXEL)
        elif self.path == "/text":
            self.wfile.write(b"<html>")
        elif self.path == "/slow":
            time.sleep(1)
        elif self.path == "/endless":
            try:
                while True:
                    self.wfile.write(b"x" * 65536)
            except OSError:
                return

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    handler = type("Recording", (Handler,), {"requests": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def reachable(server, monkeypatch):
    """The server's address, with this machine counting as public."""
    monkeypatch.setattr(fetch, "is_public", lambda address: True)
    monkeypatch.setattr(fetch, "PORTS", {server.server_port})
    return f"http://localhost:{server.server_port}"


def resolves_to(monkeypatch, *addresses):
    resolved = []

    def getaddrinfo(host, port, **options):
        resolved.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return resolved


def test_urls_are_refused_unless_allowed():
    assert "serve.url_images" in refused(403, "url_images_off", url="http://a.example/", url_images=False)


@pytest.mark.parametrize("host", [
    "127.0.0.1", "localhost", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1",
    "0.0.0.0", "2130706433", "0x7f000001", "127.1", "224.0.0.1", "255.255.255.255", "[::1]", "[::]",
    "[::ffff:10.0.0.1]", "[::ffff:7f00:1]", "[fe80::1]", "[fd00::1]", "[2002:7f00:1::]", "[64:ff9b::a00:1]",
    "[64:ff9b:1::1]", "[::7f00:1]", "[fec0::1]", "[ff0e::1]", "[2001:db8::1]",
])  # fmt: skip
def test_private_hosts_are_refused_without_a_connection(host, server, monkeypatch):
    monkeypatch.setattr(fetch, "PORTS", {server.server_port})
    url = f"http://{host}:{server.server_port}/picture"
    assert refused(422, "url_not_public", url=url).endswith("no public address.")
    assert server.RequestHandlerClass.requests == []


@pytest.mark.parametrize("addresses", [("10.0.0.7",), ("93.184.215.14", "127.0.0.1"), ("fe80::1%2",), ()])
def test_name_that_resolves_to_a_private_address_is_refused(addresses, monkeypatch):
    resolved = resolves_to(monkeypatch, *addresses)
    refused(422, "url_not_public", url="http://harmless.example/a.jpg")
    assert resolved == ["harmless.example"]


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:2800:21f::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_global_addresses_are_public(address):
    assert fetch.is_public(address)


@pytest.mark.parametrize("url", [
    "ftp://a.example/", "file:///etc/passwd", "//a.example/", "a.example/a.jpg", "http://", "http:///a.jpg",
    "http://a.example:8080/", "http://a.example:22/", "http://a.example:0/", "http://a.example:99999/",
    "http://me:secret@a.example/", "http://me@a.example/", "gopher://a.example:80/", "http://[::1/", "", "\0",
    "http://a b/", "http://a%2fb/", "http://[fe80::1%25eth0]/", "http://0177.0.0.1/",
    "http://xn--ls8h.la/", "http://xn--/", "http://xn--a/", "http://xn--\u00e9/", "http://\U0001f4a9.la/",
    "http://\u200b/", "http://a\u200db.com/", "http://\u3002/", "http://\uff11.0.0.1/", "http://\u0661.0.0.1/",
    "http://a.example:99999999999/", "http://a.example:-1/", "http://[]/", "http://[v1.a]/",
    "http://[fe80::1%eth0]/", "http://[::1]]/", "http://:@a.example:81/", "http://" + "\u00e9" * 60 + ".com/",
    "http:a", "http:/a", "http://a\0b/", "http://a\nb/",
])  # fmt: skip
def test_malformed_urls_are_refused_unresolved(url, monkeypatch):
    resolved = resolves_to(monkeypatch, "93.184.215.14")
    if url:
        assert refused(422, "bad_url", url=url).isascii()  # nothing of the URL
    assert resolved == []


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example", ".example", "a." * 200 + "example"])
def test_host_with_an_impossible_label_has_no_public_address(host):
    refused(422, "url_not_public", url=f"http://{host}/")


def test_public_url_is_fetched_by_address_with_its_own_host_header(reachable, server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:9")
    resolved = resolves_to(monkeypatch, "127.0.0.1")
    port = server.server_port
    np.testing.assert_array_equal(read(url=f"http://pictures.example:{port}/picture"), ingested(PIXEL))
    assert resolved[0] == "pictures.example"
    assert server.RequestHandlerClass.requests == [("/picture", f"pictures.example:{port}")]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/redirect", 422, "url_redirects"),
        ("/nothing", 422, "url_failed"),
        ("/text", 422, "unusable_image"),
        ("/endless", 413, "image_too_large"),
    ],
)
def test_bad_responses_of_a_url_are_refused(reachable, server, path, status, code):
    refused(status, code, url=reachable + path)
    assert [path for path, _ in server.RequestHandlerClass.requests] == [path]


HOSTILE_HEADERS = {
    "host that cannot be encoded": b"302 Found\r\nLocation: http://xn--ls8h.la/",
    "brackets": b"302 Found\r\nLocation: http://[::1",
    "no text": b"302 Found\r\nLocation: \xff\xfe",
    "port": b"302 Found\r\nLocation: http://a:99999/",
    "status": b"abc OK",
    "length": b"200 OK\r\nContent-Length: -1",
    "transfer": b"200 OK\r\nTransfer-Encoding: nothing",
    "name": b"200 OK\r\n\xff: 1",
}


@pytest.mark.parametrize("name", HOSTILE_HEADERS)
def test_hostile_headers_of_a_response_are_refused(name, monkeypatch):
    async def read_from_hostile_server():
        async def answer(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 " + HOSTILE_HEADERS[name] + b"\r\n\r\n")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as running:
            port = running.sockets[0].getsockname()[1]
            monkeypatch.setattr(fetch, "PORTS", {port})
            await fetch.fetch(f"http://localhost:{port}/", max_bytes=100)

    monkeypatch.setattr(fetch, "is_public", lambda address: True)
    with pytest.raises(ApiError) as refusal:
        asyncio.run(read_from_hostile_server())
    assert refusal.value.status_code == 422 and refusal.value.code in ("url_failed", "url_redirects")


def test_slow_url_is_refused(reachable):
    refused(422, "image_too_slow", url=f"{reachable}/slow", upload_timeout_s=0.2)


def test_url_without_a_server_is_refused(monkeypatch):
    monkeypatch.setattr(fetch, "is_public", lambda address: True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        monkeypatch.setattr(fetch, "PORTS", {port})
        assert "ConnectError" in refused(422, "url_failed", url=f"http://127.0.0.1:{port}/")


def test_tls_checks_the_name_and_connects_to_the_address(monkeypatch):
    sent = []

    class Stream(httpx.AsyncByteStream):
        async def __aiter__(self):
            yield PIXEL

    class Transport(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            sent.append(request)
            return httpx.Response(200, stream=Stream())

    plain = httpx.AsyncClient
    monkeypatch.setattr(httpx, "AsyncClient", lambda **options: plain(transport=Transport(), **options))
    for address in ("93.184.215.14", "2606:2800:21f::1"):
        resolves_to(monkeypatch, address)
        read(url="https://bücher.example/a.png?b=1")
        request = sent.pop()
        assert request.url.host == address and request.url.raw_path == b"/a.png?b=1"
        assert request.headers["host"] == "xn--bcher-kva.example"
        assert request.extensions["sni_hostname"] == "xn--bcher-kva.example"
