"""How a Ray that Kallos starts listens, and whether it lives."""

import contextlib
from collections.abc import Iterator
from typing import Any, cast

VITAL = ("gcs_server", "raylet")


@contextlib.contextmanager
def on_this_machine_alone() -> Iterator[None]:
    """Let `ray.init` use the loopback interface, and leave SIGTERM to Kallos.

    Ray listens on all interfaces, except on macOS and Windows, and replaces 127.0.0.1 as `_node_ip_address`.
    On SIGTERM it prints a C++ stack trace, and its own handlers end the process with status 1.
    """
    from ray._private import ray_constants, utils

    changes: list[tuple[Any, str, Any]] = [
        (ray_constants, "ENABLE_RAY_CLUSTER", False),
        (ray_constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER", True),
        (utils, "set_sigterm_handler", lambda _handler: None),
    ]
    before = [getattr(owner, name) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for (owner, name, _), value in zip(changes, before, strict=True):
            setattr(owner, name, value)


def dead_process() -> str | None:
    """Name of an ended process without which the Ray started here cannot work, None if they all live."""
    import ray

    node = cast(Any, ray)._private.worker._global_node
    dead = [name for name, _ in node.dead_processes()] if node is not None else []
    return next((name for name in VITAL if name in dead), None)
