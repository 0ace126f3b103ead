"""The harness of every verb: command line -> config -> run -> one JSON object as the last line of stdout."""

import contextlib
import importlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.errors import UserError
from cluster.profile import Profile, explain, load_profile


class JobConfig(BaseModel):
    """What every verb is told; a verb's own config extends it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: str = Field("mini", description="a shipped profile's name, or the path of a YAML file")
    store: str = Field("", description="LanceDB address of the tables, empty = the profile's")


def main(
    config_type: type[BaseModel],
    argv: list[str] | None = None,
    *,
    run: Callable[[Any], Mapping[str, Any]] | None = None,
) -> None:
    """Parse `argv` (default: the process's) into the config, run the verb's job, print its report.

    `run` is by default that of the module `job` beside the config's own. It is imported once the options are
    parsed, so that `--help` waits for neither Ray nor torch. The report is one line of
    JSON, the last on stdout; whatever libraries and worker processes print meanwhile goes to stderr. Exits
    with status 2 and one sentence on stderr for a `UserError` or a value that the config refuses.
    """
    try:
        config = parse(config_type, argv)
        with stdout_to_stderr():
            report = (run or job_of(config_type))(config)
            _leave_ray()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(to_json(report), flush=True)


def job_of(config_type: type[BaseModel]) -> Callable[[Any], Mapping[str, Any]]:
    """`run` of the verb that the config belongs to: `jobs.label.config` -> `jobs.label.job.run`."""
    package = config_type.__module__.removesuffix(".config")
    return importlib.import_module(f"{package}.job").run


def _leave_ray() -> None:
    """Let Ray say all that it has to say: its threads print whenever they like, and the report comes last."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()


def parse(config_type: type[BaseModel], argv: list[str] | None = None) -> Any:
    """The config that the command line asks for.

    Raises:
        UserError: a value out of range.
        SystemExit: unknown or missing options (status 2), or `--help` (status 0).
    """
    import tyro  # here, so that a verb called in-process does not pay for it

    try:
        return tyro.cli(config_type, args=argv)
    except ValidationError as error:
        raise UserError(explain(error)) from None


def settings(config: JobConfig) -> tuple[Profile, Any]:
    """The profile that a config names, with its store override applied, and the `Store` of its tables."""
    from cluster.tables import Store  # LanceDB takes a second to import: `--help` does not wait for it

    overrides = {"store": config.store} if config.store else {}
    profile = load_profile(config.profile, **overrides)
    return profile, Store(profile.store)


def save_config(config: BaseModel, folder: str | Path) -> Path:
    """Write `resolved_config.yaml` into the folder, made if absent; returns its path."""
    path = Path(folder) / "resolved_config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    return path


def to_json(report: Mapping[str, Any]) -> str:
    """One line of strict JSON: numpy values become numbers and lists, NaN and infinity become null."""
    return json.dumps(_plain(report), allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json"))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what is written to stdout to stderr, by Python, C libraries and child processes alike."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
