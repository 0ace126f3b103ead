"""The Ray Serve application.

    serve deploy cluster/serve/mini.yaml          # on a running cluster
    kallos serve --profile mini --port 8000       # here, until Ctrl-C

One deployment holds encoder and index of every system: a query is encoded and searched in the same process,
so an answer can never mix two encoders, and there is no hop between them to pay for. The teacher's engines
are deployments of their own, for they start on demand.
"""

import logging
import os
import secrets
import socket
import threading
import time

import httpx
import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from cluster.errors import UserError
from cluster.profile import LanguageModel, Profile, Serve
from cluster.session import connect
from cluster.tables import Store
from serve_app.config import ServeArgs, settings
from serve_app.feedback.events import make_tables
from serve_app.feedback.signed_ids import Tickets
from serve_app.http import logs
from serve_app.http.api import make_api
from serve_app.http.keys import check_exposure
from serve_app.http.metrics import Metrics
from serve_app.search.service import Service
from serve_app.search.systems import Systems, check_store, opener
from serve_app.search.teacher import JudgeEngine, RephraserEngine, Teacher

logger = logging.getLogger(__name__)
APP = "kallos"
READY_S = 60
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
    """A replica: loads every system, checks fingerprints, answers HTTP, follows the aliases."""

    def __init__(
        self, profile: Profile, args: ServeArgs, secret: bytes, engines: dict[str, DeploymentHandle]
    ) -> None:
        logs.configure()
        # `serve deploy` and `serve run` take the host from elsewhere than the profile that was checked.
        if running := _running_proxy():
            check_exposure(running[0], profile.serve)
        store = Store(profile.store, fresh=True)
        self._config, self._metrics = profile.serve, Metrics()
        self._systems = Systems(store, args.systems, opener(profile, store, self._metrics))
        self._service = Service(
            store,
            self._systems,
            self._config,
            self._metrics,
            tickets=Tickets(secret),
            teacher=Teacher(**engines, label=profile.label) if engines else None,
            examples=args.examples,
        )
        threading.Thread(target=self._follow, daemon=True, name="aliases").start()

    def _follow(self) -> None:
        while True:
            time.sleep(self._config.refresh_s)
            try:
                self._systems.refresh()
            except Exception:  # the store is away: what is open goes on answering
                logger.exception("the aliases cannot be read")

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_api(self._service, self._config, self._metrics, proxy_returns_id=True)


def build_app(args: ServeArgs) -> serve.Application:
    """The application for `serve.run`, `serve run` and Serve YAML; a dict of the same fields will do.

    Serve calls it in one process, before any replica starts. Raises UserError where there is no store.
    """
    args = ServeArgs.model_validate(args)
    profile = settings(args)
    store = Store(profile.store)
    check_store(store)
    make_tables(store)
    resources = {"num_cpus": 1, "num_gpus": profile.encoder.stage.num_gpus}
    options = {**_replicas(profile.serve), "ray_actor_options": resources}
    secret = os.environ.get("KALLOS_SECRET", "").encode() or secrets.token_bytes(32)
    return Search.options(**options).bind(profile, args, secret, _engines(profile))


def _replicas(config: Serve) -> dict:
    if config.max_replicas == config.num_replicas:
        return {"num_replicas": config.num_replicas}
    bounds = {"min_replicas": config.num_replicas, "max_replicas": config.max_replicas}
    return {"autoscaling_config": {**bounds, "target_ongoing_requests": config.max_batch_size}}


def _engines(profile: Profile) -> dict[str, serve.Application]:
    """The teacher's two engines, which run only while somebody asks."""
    if not profile.serve.teacher:
        return {}
    rephraser = _engine(RephraserEngine, profile, profile.rephraser)
    judge = _engine(JudgeEngine, profile, profile.judge)
    return {
        "rephraser": rephraser.bind(profile.rephraser, profile.label.style),
        "judge": judge.bind(profile.judge),
    }


def _engine(engine: type, profile: Profile, model: LanguageModel) -> serve.Deployment:
    return serve.deployment(engine).options(
        autoscaling_config={
            "min_replicas": 0,
            "initial_replicas": 0,
            "max_replicas": 1,
            "upscale_delay_s": 0,
            "downscale_to_zero_delay_s": profile.serve.teacher_idle_s,
            "look_back_period_s": 2,
        },
        ray_actor_options={"num_cpus": model.stage.num_cpus, "num_gpus": model.stage.num_gpus},
        max_ongoing_requests=256,  # pings must reach an engine that works, or it would seem to be starting
        max_constructor_retry_count=1,
        logging_config=QUIET,
    )


def deploy(args: ServeArgs) -> str:
    """Start Ray and Serve where they do not run yet, deploy, wait until it answers; returns the address.

    Raises:
        UserError: the port is taken, an index or checkpoint is missing, encoder and index differ, or nothing
            answers at the address within a minute.
    """
    args = ServeArgs.model_validate(args)
    profile = settings(args)
    _check(profile, args)
    connect(profile)
    host, port = _listen(profile.serve, free_port=args.port == 0)
    serve.run(build_app(args), name=APP, route_prefix="/", logging_config=QUIET)
    address = _address(host, port)
    _wait_until_ready(address)
    return address


def _address(host: str, port: int) -> str:
    """Where this machine reaches what listens there."""
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _wait_until_ready(address: str) -> None:
    """A replica that runs is asked only when the proxy has seen that it does."""
    patient = Retrying(
        retry=retry_if_exception_type(httpx.HTTPError), stop=stop_after_delay(READY_S), wait=wait_fixed(0.1)
    )
    try:
        patient(lambda: httpx.get(f"{address}/readyz").raise_for_status())
    except RetryError as error:
        last = error.last_attempt.exception()
        raise UserError(f"The search is deployed, but {address}/readyz does not answer: {last}.") from None


def shutdown() -> None:
    """Take the application down, letting answers under way finish, and leave Ray."""
    if ray.is_initialized():
        serve.delete(APP)
        ray.shutdown()


def _check(profile: Profile, args: ServeArgs) -> None:
    """What every replica checks as it starts, here first: a refusal comes at once, and as one sentence."""
    stage = profile.encoder.stage.model_copy(update={"num_gpus": 0.0})  # the replicas' GPU stays theirs
    # torch's threads are the caller's business
    here = profile.encoder.model_copy(update={"num_threads": 0, "stage": stage})
    store = Store(profile.store)
    Systems(store, args.systems, opener(profile.model_copy(update={"encoder": here}), store, Metrics()))


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
    check_exposure(running[0], config)
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
