"""The Ray Serve application.

    serve deploy cluster/serve/mini.yaml          # on a running cluster
    kallos serve --profile mini --port 8000       # on this machine, until Ctrl-C

One deployment holds the encoder and index of every system. A query is encoded and searched in the same
process, so no answer mixes two encoders, and no time is lost between processes. The teacher's engines are
separate deployments, because they start on demand.
"""

import logging
import os
import secrets
import socket
import threading
import time
from typing import Any

import httpx
import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from actors.rephraser import rephraser_stage
from cluster import command
from cluster.compat.serve import listen_as_ray_does, proxy_address
from cluster.errors import UserError
from cluster.profile import Profile, Serve, Stage
from cluster.session import connect
from cluster.tables import Store
from serve_app.config import ServeConfig, local_address, resolve_profile
from serve_app.feedback.events import make_tables
from serve_app.feedback.signed_ids import SignedIds
from serve_app.http import logs
from serve_app.http.api import make_api
from serve_app.http.keys import check_exposure
from serve_app.metrics import Metrics
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
    max_constructor_retry_count=2,  # a failure to start is rarely cured by a retry
    logging_config=QUIET,
)
@serve.ingress()
class Search:
    """A replica: opens every system, answers HTTP, follows the aliases."""

    def __init__(
        self, profile: Profile, config: ServeConfig, secret: bytes, engines: dict[str, DeploymentHandle]
    ) -> None:
        logs.configure()
        listen_as_ray_does()
        # With `serve deploy` and `serve run` the host is not the profile's, so it has not been checked yet.
        if running := proxy_address():
            check_exposure(running[0], profile.serve)
        store = Store(profile.store, fresh=True)
        self._config, self._metrics = profile.serve, Metrics()
        self._systems = Systems(store, config.systems, opener(profile, store, self._metrics))
        self._service = Service(
            store,
            self._systems,
            self._config,
            self._metrics,
            signed_ids=SignedIds(secret),
            teacher=Teacher(**engines, label=profile.label) if engines else None,
            examples=config.examples or (),
        )
        threading.Thread(target=self._follow_aliases, daemon=True, name="aliases").start()

    def _follow_aliases(self) -> None:
        while True:
            time.sleep(self._config.refresh_s)
            try:
                self._systems.refresh()
            except Exception:  # the store does not respond: the open systems keep answering
                logger.exception("the aliases cannot be read")

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_api(self._service, self._config, self._metrics, proxy_returns_id=True)


def build_app(args: dict[str, Any] | ServeConfig) -> serve.Application:
    """Build the application for `serve.run`, `serve run` and Serve YAML.

    Serve calls this in one process, before any replica starts. `args`: the fields of `ServeConfig`.
    Raises UserError for an unknown field, a wrong value, or a missing store.
    """
    config = command.validated(ServeConfig, args)
    profile = resolve_profile(config)
    store = Store(profile.store)
    check_store(store)
    make_tables(store)
    resources = {"num_cpus": 1, "num_gpus": profile.encoder.stage.num_gpus}
    options = {**_replicas(profile.serve), "ray_actor_options": resources}
    secret = os.environ.get("KALLOS_SECRET", "").encode() or secrets.token_bytes(32)
    return Search.options(**options).bind(profile, config, secret, _engines(profile))


def _replicas(config: Serve) -> dict:
    if config.max_replicas == config.num_replicas:
        return {"num_replicas": config.num_replicas}
    bounds = {"min_replicas": config.num_replicas, "max_replicas": config.max_replicas}
    return {"autoscaling_config": {**bounds, "target_ongoing_requests": config.max_batch_size}}


def _engines(profile: Profile) -> dict[str, serve.Application]:
    """The teacher's two engines, which run only while they are used."""
    if not profile.serve.teacher:
        return {}
    style = profile.label.style
    rephraser = _engine(RephraserEngine, profile.serve, rephraser_stage(profile.rephraser, style))
    judge = _engine(JudgeEngine, profile.serve, profile.judge.stage)
    return {
        "rephraser": rephraser.bind(profile.rephraser, style),
        "judge": judge.bind(profile.judge),
    }


def _engine(engine: type, config: Serve, stage: Stage) -> serve.Deployment:
    return serve.deployment(engine).options(
        autoscaling_config={
            "min_replicas": 0,
            "initial_replicas": 0,
            "max_replicas": 1,
            "upscale_delay_s": 0,
            "downscale_to_zero_delay_s": config.teacher_idle_s,
            "look_back_period_s": 2,
        },
        ray_actor_options={"num_cpus": stage.num_cpus, "num_gpus": stage.num_gpus},
        max_ongoing_requests=256,  # a ping must get through to a busy engine, or it would seem to be starting
        max_constructor_retry_count=1,
        logging_config=QUIET,
    )


def deploy(config: ServeConfig) -> str:
    """Start Ray and Serve if necessary, deploy, wait until the search is ready; returns its address.

    Raises:
        UserError: the port is taken, an index or checkpoint is missing, encoder and index differ, or the
            search is not ready within a minute.
    """
    profile = resolve_profile(config)
    _check(profile, config)
    connect(profile)
    host, port = _listen(profile.serve)
    serve.run(build_app(config), name=APP, route_prefix="/", logging_config=QUIET)
    address = local_address(host, port)
    _wait_until_ready(address)
    return address


def _wait_until_ready(address: str) -> None:
    """Wait until the proxy passes requests to a replica. Raises UserError after `READY_S` seconds."""
    retrying = Retrying(
        retry=retry_if_exception_type(httpx.HTTPError), stop=stop_after_delay(READY_S), wait=wait_fixed(0.1)
    )
    try:
        retrying(lambda: httpx.get(f"{address}/readyz").raise_for_status())
    except RetryError as error:
        last = error.last_attempt.exception()
        raise UserError(f"The search is deployed but not ready at {address}/readyz: {last}.") from None


def shutdown() -> None:
    """Finish the running requests, remove the application, and disconnect from Ray."""
    if ray.is_initialized():
        serve.delete(APP)
        ray.shutdown()


def _check(profile: Profile, config: ServeConfig) -> None:
    """Run the checks of a replica here first, so that an error is reported at once, in one sentence."""
    stage = profile.encoder.stage.without_gpus()  # the GPU is reserved for the replicas
    # num_threads None: do not change torch's thread count in the caller's process
    here = profile.encoder.model_copy(update={"num_threads": None, "stage": stage})
    store = Store(profile.store)
    Systems(store, config.systems, opener(profile.model_copy(update={"encoder": here}), store, Metrics()))


def _listen(config: Serve) -> tuple[str, int]:
    """Start Serve's HTTP proxy if it is not running; returns its host and port."""
    running = proxy_address()
    if running is None:
        port = _free_port(config.host, config.port)
        serve.start(
            proxy_location="HeadOnly", http_options={"host": config.host, "port": port}, logging_config=QUIET
        )
        return config.host, port
    if config.port not in (0, running[1]):
        raise UserError(
            f"Ray Serve already listens on port {running[1]} of this cluster and cannot use {config.port}: "
            f"give --port {running[1]}."
        )
    check_exposure(running[0], config)
    return running


def _free_port(host: str, port: int) -> int:
    """`port` itself, or a free one for 0.

    Raises:
        UserError: the port is taken. (Serve would share it silently: it listens with SO_REUSEPORT.)
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
