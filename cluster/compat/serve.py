"""Ray Serve's HTTP proxy."""

from ray import serve


def proxy_address() -> tuple[str, int] | None:
    """(host, port) on which Serve listens in this cluster, None where it does not run.

    No public call returns them: `serve.status()` names the proxies without address, and Serve's REST
    interface needs the dashboard.
    """
    client = serve.context._get_global_client(raise_if_no_controller_running=False)
    return None if client is None else (client.http_config.host, client.http_config.port)


def replica_title(app: str, deployment: str) -> str:
    """How the process title of each replica begins. Serve returns no process ids without the dashboard."""
    return f"ray::ServeReplica:{app}:{deployment}"
