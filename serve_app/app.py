"""The Ray Serve application.

    serve deploy cluster/serve/mini.yaml          # on a running cluster
    kallos serve --profile mini --port 8000       # here, until Ctrl-C

One deployment holds encoder and index of every system: a query is encoded and searched in the same process,
so an answer can never mix two encoders, and there is no hop between them to pay for.
"""

import socket

import ray
from fastapi import FastAPI
from ray import serve

from cluster.errors import UserError
from cluster.profile import Profile, Serve
from cluster.session import connect
from cluster.tables import Store
from serve_app.api import make_api
from serve_app.args import ServeArgs, settings
from serve_app.systems import open_service

APP = "kallos"
QUIET = {"log_level": "WARNING", "enable_access_log": False}


@serve.deployment(
    max_ongoing_requests=256,
    graceful_shutdown_wait_loop_s=0.2,
    graceful_shutdown_timeout_s=20,
    max_constructor_retry_count=2,  # what keeps it from starting is seldom mended by trying again
    logging_config=QUIET,
)
@serve.ingress()
class Search:
    """A replica: loads every system, checks fingerprints, answers HTTP."""

    def __init__(self, profile: Profile, store: Store, args: ServeArgs) -> None:
        self._service = open_service(profile, store, args.systems, args.examples)
        self._config = profile.serve

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_api(self._service, self._config)


def build_app(args: ServeArgs) -> serve.Application:
    """The application for `serve.run`, `serve run` and Serve YAML; a dict of the same fields will do."""
    args = ServeArgs.model_validate(args)
    profile = settings(args)
    options = {
        "num_replicas": profile.serve.num_replicas,
        "ray_actor_options": {"num_cpus": 1, "num_gpus": profile.encoder.stage.num_gpus},
    }
    return Search.options(**options).bind(profile, Store(profile.store), args)


def deploy(args: ServeArgs) -> str:
    """Start Ray and Serve where they do not run yet, deploy, wait until it answers; returns the address.

    Raises:
        UserError: the port is taken, an index or checkpoint is missing, or encoder and index differ.
    """
    args = ServeArgs.model_validate(args)
    profile = settings(args)
    _check(profile, args)
    connect(profile)
    host, port = _listen(profile.serve, free_port=args.port == 0)
    serve.run(build_app(args), name=APP, route_prefix="/", logging_config=QUIET)
    return f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"


def shutdown() -> None:
    """Take the application down, letting answers under way finish, and leave Ray."""
    if ray.is_initialized():
        serve.delete(APP)
        ray.shutdown()


def _check(profile: Profile, args: ServeArgs) -> None:
    """What every replica checks as it starts, here first: a refusal comes at once, and as one sentence."""
    here = profile.encoder.model_copy(update={"num_threads": 0})  # torch's threads are the caller's business
    open_service(profile.model_copy(update={"encoder": here}), Store(profile.store), args.systems)


def _listen(config: Serve, free_port: bool) -> tuple[str, int]:
    """Start Serve's HTTP proxy, or find the one that runs; returns where it listens."""
    running = _running_proxy()
    if running is None:
        port = _free_port(config.host, 0 if free_port else config.port)
        serve.start(
            proxy_location="HeadOnly", http_options={"host": config.host, "port": port}, logging_config=QUIET
        )
        return config.host, port
    if not free_port and running[1] != config.port:
        raise UserError(
            f"Ray Serve listens on port {running[1]} of this cluster and cannot move to {config.port}: "
            f"use --port {running[1]}."
        )
    return running


def _running_proxy() -> tuple[str, int] | None:
    # Serve tells its port through no public call.
    client = serve.context._get_global_client(raise_if_no_controller_running=False)
    return None if client is None else (client.http_config.host, client.http_config.port)


def _free_port(host: str, port: int) -> int:
    """`port` itself, or any free one for 0.

    Raises:
        UserError: it is taken. (Serve would share it silently: it listens with SO_REUSEPORT.)
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"Cannot listen on {host}:{port} ({error.strerror}): give another --port."
            ) from None
        return probe.getsockname()[1]
