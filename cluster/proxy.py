"""How Ray Serve answers on a cluster that is started here: through HAProxy, which comes with Ray, if it can.

HAProxy passes requests straight to the replicas: less latency and twice the requests of Serve's own proxy,
which stands behind it for the time when no replica is up. A cluster of one's own gets the same with

    eval "$(python -m cluster.proxy)" && ray start ...
"""

import contextlib
import os
import secrets
import shlex
import socket
from pathlib import Path

FREE_PORTS = range(20_000, 30_000)
# Where the search listens behind HAProxy: it asks the replicas, which listen there too, at 127.0.0.1, and for
# `::` it would listen on IPv4 alone.
HAPROXY_HOSTS = ("127.0.0.1", "localhost", "0.0.0.0")
ERROR_FILES = Path(__file__).parent / "serve"
# In HAProxy's `defaults`. A request is passed on once its body is there, so that HAProxy still has all of it
# when a replica dies with it in hand; what is too large for that (16 kB), and fails, is told by a 503 and not
# by Serve's 500. A body that never comes is waited for as long as `serve_app.http.middleware` waits. What is wrong with
# a request's head HAProxy tells in words of its own: these files are for requests whose head it has read.
HAPROXY_DEFAULTS = (
    "option http-buffer-request",
    "timeout http-request 30s",
    f'errorfile 400 "{ERROR_FILES / "bad_request.http"}"',
    f'errorfile 408 "{ERROR_FILES / "body_too_slow.http"}"',
    f'errorfile 502 "{ERROR_FILES / "no_replica.http"}"',
    f'errorfile 503 "{ERROR_FILES / "no_replica.http"}"',
)
# What Ray needs to be told on every cluster.
HAPROXY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.http.unavailable:middlewares",
    # A request that a dying replica left unanswered is repeated, and not to the same replica: the first
    # connection refused marks it as down. Done twice, every route leaves what it leaves done once; but what
    # is told may be the second time's, such as 404 for an image that the first time deleted.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
    # The last line of `defaults` that Ray lets one choose; for those that follow it has no setting.
    "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": "\n    ".join(("leastconn", *HAPROXY_DEFAULTS)),
}
# Nobody listens there: what HAProxy logs of each request has the words of queries in it.
LOG_SOCKET = "no-log.sock"


def serve_environment(folder: str, host: str) -> dict[str, str]:
    """Environment variables for Ray, before it starts; a cluster that is joined has its own.

    Args:
        folder: the cluster's own, short: HAProxy's sockets have their names in it.
        host: where the search listens.
    """
    common = {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0", **_trusted_proxies()}
    if host not in HAPROXY_HOSTS:
        return common | {"RAY_SERVE_ENABLE_HA_PROXY": "0"}
    files = {
        "LOG_TARGET": LOG_SOCKET,
        "CONFIG_FILE_LOC": "haproxy.cfg",
        "SOCKET_PATH": "admin.sock",
        "METRICS_SOCKET_PATH": "metrics.sock",
        "SERVER_STATE_BASE": "",
        "SERVER_STATE_FILE": "server-state",
    }
    return {
        **common,
        **HAPROXY,
        **{f"RAY_SERVE_HAPROXY_{name}": os.path.join(folder, file) for name, file in files.items()},
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # Two clusters on one machine would fight for the ports that they take otherwise.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
    }


def exports() -> str:
    """Shell commands for a node of a cluster of one's own, before `ray start`.

    Ports, the places of files and how other applications run there are not ours to choose.
    """
    values = {**HAPROXY, "RAY_SERVE_HAPROXY_LOG_TARGET": f"/run/{LOG_SOCKET}", **_trusted_proxies()}
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())


def _trusted_proxies() -> dict[str, str]:
    """No address that a client calls its own is believed, unless somebody has named proxies to trust."""
    return {"FORWARDED_ALLOW_IPS": os.environ.get("FORWARDED_ALLOW_IPS", "")}


def _free_port() -> int:
    """One that nobody takes until Serve starts: below those that systems hand out, beside those of Ray."""
    while True:
        port = FREE_PORTS[secrets.randbelow(len(FREE_PORTS))]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port


if __name__ == "__main__":
    print(exports())
