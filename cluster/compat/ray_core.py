"""Ray's start-up and its log output."""

import importlib
import logging
import os
import warnings
from typing import Any


def in_submitted_job() -> bool:
    """Whether this process is the driver of a Ray job, which has to join the cluster of that job.

    Ray offers no public way to find out before `ray.init`; its job supervisor sets this variable.
    """
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def temporary_folder(folder: str) -> dict[str, Any]:
    """Argument of `ray.init` for the folder of logs and sockets. `ray start` calls it `--temp-dir`."""
    return {"_temp_dir": folder}


def quiet() -> None:
    """Keep plans of Ray Data, advice on tokens and LanceDB's warning about forks out of the terminal.

    Ray Data sets the level of its logger as it is imported, so the import comes first. Ray advises to choose
    a token even where one is chosen. LanceDB warns of forks, but Ray calls exec right after each of its own.
    """
    importlib.import_module("ray.data")
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="lancedb fork support", category=RuntimeWarning)
