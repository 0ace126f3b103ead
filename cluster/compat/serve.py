"""Ray Serve's HTTP proxy and replicas."""

from typing import Any, cast

from ray.serve.context import _get_global_client
from ray.util import get_node_ip_address


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


def listen_as_ray_does() -> None:
    """Let this replica listen for other replicas on loopback if Ray does. Called in a replica's constructor.

    Ray itself binds to loopback on a node of 127.0.0.1, but Serve's gRPC server binds to all interfaces.
    """
    if get_node_ip_address() != "127.0.0.1":
        return
    from ray.serve._private import replica

    module = cast(Any, replica)
    bind = module.add_port_to_grpc_server
    module.add_port_to_grpc_server = lambda server, address: bind(
        server, address.replace("[::]", "127.0.0.1")
    )
