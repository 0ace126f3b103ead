"""Ray's start-up."""

import os
from pathlib import Path
from typing import Any, cast

import ray


def in_submitted_job() -> bool:
    """Whether this process is the driver of a Ray job, which has to join the cluster of that job.

    Ray offers no public way to find out before `ray.init`; its job supervisor sets this variable.
    """
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def temporary_folder(folder: str) -> dict[str, Any]:
    """Argument of `ray.init` for the folder of logs and sockets. `ray start` calls it `--temp-dir`."""
    return {"_temp_dir": folder}


def session_folder() -> Path:
    """The folder of Ray's session on this node, in a worker as in a driver. No public call returns it."""
    return Path(cast(Any, ray)._private.worker._global_node.get_session_dir_path())
