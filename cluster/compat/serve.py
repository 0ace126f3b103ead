"""Ray Serve's HTTP proxy."""

from ray.serve.context import _get_global_client


def proxy_address() -> tuple[str, int] | None:
    """(host, port) on which Serve listens in this cluster, None if it does not run.

    No public call returns them: `serve.status()` names the proxies without their address, and Serve's REST
    API needs the dashboard.
    """
    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else (client.http_config.host or "0.0.0.0", client.http_config.port)


def replica_title(app: str, deployment: str) -> str:
    """Part of the process title of each replica. Without the dashboard, Ray returns no process ids."""
    return f"ServeReplica:{app}:{deployment}"
