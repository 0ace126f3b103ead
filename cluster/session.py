"""Starts or joins Ray for a profile, and refuses a pipeline that the resources can never run.

connect(profile)
require({"embed": profile.encoder.stage, "judge": profile.judge.stage})
"""

import atexit
import importlib
import logging
import math
import os
import secrets
import shutil
import socket
import tempfile
import warnings
from collections.abc import Mapping, Sequence

import ray

from cluster import profile as profiles
from cluster.errors import UserError
from cluster.profile import Profile, Stage
from cluster.proxy import serve_environment

# Ray Data reads, shuffles and writes in tasks of one CPU beside the actors that a pipeline holds.
MARGIN_CPUS = 1.0
CONNECT_TIMEOUT_S = 5.0
# Ray gives a node 30 s to start, which a busy machine may miss.
START_ATTEMPTS = 3
# What worker processes on other nodes do not need of the repository.
EXCLUDES = [".git", ".venv", "runs", "build", "dist", "tests", "**/__pycache__", "*.egg-info"]

Resources = Mapping[str, float]

# The autoscaler's bounds that the profile of the last `connect` declares.
_declared: dict[str, float] = {}


def connect(profile: Profile) -> None:
    """Start Ray here, or join the cluster that the profile names. Does nothing more when Ray runs already.

    A cluster started here has a temp dir of its own, a token that nobody else knows, and ends with the
    process. A job that was submitted to a cluster joins that one, whatever the profile says.

    Raises:
        UserError: nothing answers at the address.
    """
    _declared.update(CPU=profile.ray.max_cpus, GPU=profile.ray.max_gpus)
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _quiet()
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        ray.init(address="auto", log_to_driver=profile.ray.log_to_driver)
    elif profile.ray.address == "local":
        _start(profile)
    else:
        _join(profile.ray)


def require(stages: Mapping[str, Stage]) -> None:
    """Refuse stages that together, or alone on one node, can never fit the cluster that Ray is connected to.

    What an autoscaler may add counts, as the profile of `connect` declares it.

    Raises:
        UserError: names the CPUs or GPUs that are missing, and what asks for them.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if fault := shortage(stages, nodes, _declared):
        raise UserError(fault)


def shortage(stages: Mapping[str, Stage], nodes: Sequence[Resources], declared: Resources) -> str:
    """Why the smallest form of the stages cannot run, in one sentence, or "" when it can.

    Args:
        stages: name -> resources of each stage that runs at the same time.
        nodes: resources of each node that is alive.
        declared: total CPU and GPU that an autoscaler may reach, 0 or absent when there is none.
    """
    for kind, margin in (("CPU", MARGIN_CPUS), ("GPU", 0.0)):
        needed = sum(stage.min_actors * _of(stage, kind) for stage in stages.values())
        needed += margin if needed else 0.0
        limit = max(sum(node.get(kind, 0.0) for node in nodes), declared.get(kind, 0.0))
        if needed > limit + 1e-6:
            return _too_little(stages, kind, needed, limit)
    if any(declared.values()):
        return ""  # the shape of the nodes to come is not known
    for name, stage in stages.items():
        room = _room(stage, nodes)
        if room < stage.min_actors:
            return _too_small(name, stage, room)
    return ""


def _too_little(stages: Mapping[str, Stage], kind: str, needed: float, limit: float) -> str:
    asked = [f"{name} {s.min_actors} x {_of(s, kind):g}" for name, s in stages.items() if _of(s, kind)]
    if kind == "CPU":
        asked.append(f"reading and writing {MARGIN_CPUS:g}")
    remedy = "add nodes or raise ray.num_cpus" if kind == "CPU" else "add nodes"
    return (
        f"The pipeline needs {needed:g} {kind}s ({', '.join(asked)}) and the cluster can have {limit:g}, so "
        f"{needed - limit:g} {kind}s are missing: {remedy}, or "
        f"lower min_actors or num_{kind.lower()}s of a stage in the profile."
    )


def _too_small(name: str, stage: Stage, room: int) -> str:
    size = f"{stage.num_cpus:g} CPUs" + (f" and {stage.num_gpus:g} GPUs" if stage.num_gpus else "")
    return (
        f"Stage {name!r} needs {stage.min_actors} actors of {size}, each on one node, and the nodes have "
        f"room for {room}: add larger nodes, or lower the stage's num_cpus, num_gpus or min_actors."
    )


def _of(stage: Stage, kind: str) -> float:
    return stage.num_cpus if kind == "CPU" else stage.num_gpus


def _room(stage: Stage, nodes: Sequence[Resources]) -> int:
    """Actors of the stage that the nodes hold when nothing else runs."""
    return sum(_room_on(stage, node, most=stage.min_actors) for node in nodes)


def _room_on(stage: Stage, node: Resources, most: int) -> int:
    fits = [
        math.floor(node.get(kind, 0.0) / _of(stage, kind) + 1e-6)
        for kind in ("CPU", "GPU")
        if _of(stage, kind)
    ]
    return min([*fits, most])


def _quiet() -> None:
    """Keep what the verbs tell readable: warnings and errors of Ray Data show, its plans do not."""
    importlib.import_module("ray.data")  # sets its logger as it is imported, so that comes first

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # Ray starts its processes by fork and exec at once: nothing of LanceDB runs in between.
    warnings.filterwarnings("ignore", message="lancedb fork support", category=RuntimeWarning)


def _start(profile: Profile) -> None:
    # Anyone who reaches a cluster's ports may run code in it: a token of this process keeps others out.
    if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # its advice is taken above
    for attempts_left in reversed(range(START_ATTEMPTS)):
        try:
            return _start_once(profile.ray, profile.serve.host)
        except Exception as error:  # Ray raises no narrower one
            ray.shutdown()
            if not attempts_left or "timed out" not in str(error):
                raise


def _start_once(config: profiles.Ray, serve_host: str) -> None:
    # The path is short because Ray puts sockets below it, whose names may have 107 characters.
    folder = tempfile.mkdtemp(prefix="kallos-", dir="/tmp" if os.path.isdir("/tmp") else None)
    atexit.register(_end, folder)
    os.environ.update(serve_environment(folder, serve_host))
    ray.init(
        address="local",
        num_cpus=config.num_cpus or None,
        object_store_memory=config.object_store_bytes,
        include_dashboard=False,
        log_to_driver=config.log_to_driver,
        _temp_dir=folder,
    )


def _end(folder: str) -> None:
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def _join(config: profiles.Ray) -> None:
    if config.address != "auto":
        _probe(config.address)
    runtime_env = {"working_dir": str(profiles.ROOT), "excludes": EXCLUDES}
    try:
        ray.init(address=config.address, log_to_driver=config.log_to_driver, runtime_env=runtime_env)
    except ConnectionError as error:
        raise UserError(f"Ray cannot join the cluster at ray.address {config.address!r}: {error}.") from None


def _probe(address: str) -> None:
    """Fail in seconds where Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f'ray.address {address!r} is not "local", "auto" or host:port.')
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise UserError(f"Nothing answers at ray.address {address!r}: {error}.") from None
