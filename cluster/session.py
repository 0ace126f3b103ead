"""Start or join Ray for a profile, and refuse a pipeline that the cluster can never run.

connect(profile)
require({"embed": profile.encoder.stage, "judge": profile.judge.stage})
"""

import atexit
import math
import os
import secrets
import shutil
import socket
import threading
from collections.abc import Mapping, Sequence

import ray

from cluster import profile as profiles
from cluster import terminal
from cluster.compat import ray_core, ray_start
from cluster.compat.errors import is_start_timeout
from cluster.errors import UserError, brief
from cluster.process import session_folder
from cluster.process.signals import end_process
from cluster.profile import Profile, Stage
from cluster.proxy import serve_environment

# Besides the actors of a pipeline, Ray Data runs tasks of one CPU to read, shuffle and write.
MARGIN_CPUS = 1.0
CONNECT_TIMEOUT_S = 5.0
# Ray gives a node 30 s to start, and a busy machine may need longer.
START_ATTEMPTS = 3
# Ray starts a worker process for each of its CPUs. A machine with few real CPUs may still have 64.
MOST_CPUS = max(64, 4 * (os.cpu_count() or 1))
WATCH_S = 1.0
# Parts of the repository that worker processes on other nodes do not need.
EXCLUDES = [".git", ".venv", "runs", "build", "dist", "tests", "**/__pycache__", "*.egg-info"]

Resources = Mapping[str, float]

# The autoscaler's limits in the profile of the last `connect`.
_declared: dict[str, float | None] = {}
_ended = threading.Event()


def connect(profile: Profile) -> None:
    """Start Ray here, or join the cluster that the profile names. Keeps an existing connection.

    A cluster started here has its own temporary folder and a secret token, and ends with the process. A
    submitted job joins the cluster it was submitted to, regardless of the profile.

    Raises:
        UserError: there is no cluster at the address.
    """
    _declared.update(CPU=profile.ray.max_cpus, GPU=profile.ray.max_gpus)
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if log := terminal.log_path():  # before Ray starts: a crash of Ray ends the process at once
        terminal.say(f"Starting Ray; messages of libraries go to {log}")
    if ray_core.in_submitted_job():
        ray.init(address="auto", log_to_driver=profile.ray.log_to_driver)
    elif profile.ray.address == "local":
        _start(profile)
    else:
        _join(profile.ray)


def require(stages: Mapping[str, Stage]) -> None:
    """Refuse stages that can never fit the connected cluster, together or each on one node.

    Counts the CPUs and GPUs that an autoscaler may add, as declared in the profile of `connect`.

    Raises:
        UserError: names the missing CPUs or GPUs, and the stages that need them.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if fault := shortage(stages, nodes, _declared):
        raise UserError(fault)


def shortage(
    stages: Mapping[str, Stage], nodes: Sequence[Resources], declared: Mapping[str, float | None]
) -> str:
    """Why the stages cannot run even with `min_actors` actors each, in one sentence; "" if they can.

    Args:
        stages: name -> resources of each stage that runs at the same time.
        nodes: resources of each node that is alive.
        declared: total CPU and GPU that an autoscaler may reach, None or absent when there is none.
    """
    for kind, margin in (("CPU", MARGIN_CPUS), ("GPU", 0.0)):
        needed = sum(stage.min_actors * _of(stage, kind) for stage in stages.values())
        needed += margin if needed else 0.0
        limit = max(sum(node.get(kind, 0.0) for node in nodes), declared.get(kind) or 0.0)
        if needed > limit + 1e-6:
            return _too_little(stages, kind, needed, limit)
    if any(declared.values()):
        return ""  # the size of the nodes that an autoscaler adds is unknown
    for name, stage in stages.items():
        room = _room(stage, nodes)
        if room < stage.min_actors:
            return _too_small(name, stage, room)
    return ""


def _too_little(stages: Mapping[str, Stage], kind: str, needed: float, limit: float) -> str:
    shares = [f"{name} {s.min_actors} x {_of(s, kind):g}" for name, s in stages.items() if _of(s, kind)]
    if kind == "CPU":
        shares.append(f"reading and writing {MARGIN_CPUS:g}")
    remedy = "add nodes or raise ray.num_cpus" if kind == "CPU" else "add nodes"
    return (
        f"The pipeline needs {needed:g} {kind}s ({', '.join(shares)}) and the cluster can have {limit:g}, so "
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
    """Number of actors of the stage that fit on the nodes while nothing else runs, at most `min_actors`."""
    return sum(_room_on(stage, node, most=stage.min_actors) for node in nodes)


def _room_on(stage: Stage, node: Resources, most: int) -> int:
    fits = [
        math.floor(node.get(kind, 0.0) / _of(stage, kind) + 1e-6)
        for kind in ("CPU", "GPU")
        if _of(stage, kind)
    ]
    return min([*fits, most])


def _start(profile: Profile) -> None:
    config = profile.ray
    _check_size(config)
    # Anyone who can reach a cluster's ports can run code in it. A random token keeps others out.
    if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    atexit.register(end)
    for attempts_left in reversed(range(START_ATTEMPTS)):
        try:
            return _start_once(config, profile.serve.host)
        except UserError:
            raise
        except Exception as error:
            end()
            if not attempts_left or not is_start_timeout(error):
                raise UserError(
                    f"Ray cannot start here with ray.num_cpus {config.num_cpus} and ray.object_store_bytes "
                    f"{config.object_store_bytes:,}: {brief(str(error))}"
                ) from error


def _check_size(config: profiles.Ray) -> None:
    """Raise UserError for sizes with which Ray ends in a stack trace, or fills the machine with processes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if config.object_store_bytes > memory:
        raise UserError(
            f"ray.object_store_bytes {config.object_store_bytes:,} is more than the memory of this machine, "
            f"{memory:,} bytes: lower it, for example --set ray.object_store_bytes={memory // 4}."
        )
    if (config.num_cpus or 0) > MOST_CPUS:
        raise UserError(
            f"ray.num_cpus {config.num_cpus:,} is too many for this machine of {os.cpu_count()} CPUs, "
            f"because Ray starts a process for each: give at most {MOST_CPUS}."
        )
    shared = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0
    if config.object_store_bytes > shared:
        terminal.say(
            f"/dev/shm has {shared:,} bytes free, less than ray.object_store_bytes "
            f"{config.object_store_bytes:,}, so Ray keeps objects in slower files: enlarge it (docker run "
            "--shm-size), or lower ray.object_store_bytes."
        )


def _start_once(config: profiles.Ray, serve_host: str) -> None:
    folder = session_folder.make()
    os.environ.update(serve_environment(str(folder), serve_host))
    with session_folder.for_temporary_files(folder / "tmp"), ray_start.on_this_machine_alone():
        ray.init(
            address="local",
            num_cpus=config.num_cpus,
            object_store_memory=config.object_store_bytes,
            include_dashboard=False,
            log_to_driver=config.log_to_driver,
            **ray_core.temporary_folder(str(folder / "ray")),
        )
    if terminal.log_path():
        _ended.clear()
        threading.Thread(target=_watch, daemon=True, name="ray-watch").start()


def _watch() -> None:
    """End a verb whose Ray has died: calls to Ray would hang, or end the process without a message."""
    seen = None
    while not _ended.wait(WATCH_S):
        dead = ray_start.dead_process() if ray.is_initialized() else None
        if dead and dead == seen:  # seen twice: Ray is not just being shut down
            terminal.say(
                f"error: Ray's process {dead} has ended, perhaps killed for lack of memory: run the command "
                "again, which continues from what was stored."
            )
            terminal.say(f"log: {terminal.log_path()}")
            end_process(1)
        seen = dead


def end() -> None:
    """Leave Ray; end a cluster that `connect` started, and remove its files. Does nothing the second time."""
    _ended.set()
    ray.shutdown()
    session_folder.remove_all()


def _join(config: profiles.Ray) -> None:
    if config.address != "auto":
        _probe(config.address)
    runtime_env = {"working_dir": str(profiles.ROOT), "excludes": EXCLUDES}
    try:
        ray.init(address=config.address, log_to_driver=config.log_to_driver, runtime_env=runtime_env)
    except ConnectionError as error:
        raise UserError(f"Ray cannot join the cluster at ray.address {config.address!r}: {error}.") from None


def _probe(address: str) -> None:
    """Check within `CONNECT_TIMEOUT_S` that something listens there; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f'ray.address {address!r} is not "local", "auto" or host:port.')
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise UserError(f"There is no Ray cluster at ray.address {address!r}: {error}.") from None
