"""The harness of every verb: command line -> config -> run -> one JSON object as the last line of stdout."""

import contextlib
import importlib
import inspect
import json
import math
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cluster import terminal
from cluster.compat.errors import first_cause, storage_fault
from cluster.errors import UserError, exit_on_user_error, explain, shown
from cluster.process import signals
from cluster.profile import Profile, Settings, load_profile

Config = TypeVar("Config", bound=BaseModel)
Section = TypeVar("Section", bound=Settings)


class Options(BaseModel):
    """Options of a command line: frozen; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _flat(words: Any) -> Any:
    """One tuple of all `--set` options, each of which takes several values."""
    if not isinstance(words, list | tuple):
        return words
    return tuple(word for group in words for word in ((group,) if isinstance(group, str) else group))


class ProfileConfig(Options):
    """Which profile a command uses, and which of its fields it changes."""

    profile: str = Field(default="mini", description="name of a shipped profile, or path of a YAML file")
    set: Annotated[
        tuple[str, ...],
        BeforeValidator(_flat),
        tyro.conf.arg(
            constructor=tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]], metavar="KEY=VALUE"
        ),
    ] = Field(
        default=(),
        description="profile fields to change, such as align.beta=2 label.style=reorg; docs/profile.md lists "
        "them; an option of the verb itself takes precedence",
    )


class JobConfig(ProfileConfig):
    """The options of every job; the config of a verb extends them."""

    store: str | None = Field(
        default=None, description="LanceDB address of the tables; default: the profile's store"
    )


def main(
    config_type: type[BaseModel],
    argv: list[str] | None = None,
    *,
    run: Callable[[Any], Mapping[str, Any]] | None = None,
) -> None:
    """Parse `argv` (default: the process's) into the config, run the verb's job, print its report.

    `run` defaults to `run` of the module `job` beside the config's module, imported after the options are
    parsed so that `--help` waits for neither Ray nor torch. The report is one line of JSON on stdout.
    `terminal.say` and `terminal.progress` write to stderr; what libraries and worker processes print goes to
    a log file.

    A `UserError`, or a value that the config refuses, ends the process with status 2 and one sentence on
    stderr; Ctrl-C with 130, SIGTERM with 143; any other error with status 1, one sentence, and its traceback
    in the log file.
    """
    with signals.handled(), exit_on_user_error():
        config = parse(config_type, argv)
        with terminal.captured(_verb(config_type)), _unexpected_errors_in_log():
            try:
                report = (run or job_of(config_type))(config)
            finally:
                _leave_ray()
        print(to_json(report), flush=True)


def _verb(config_type: type[BaseModel]) -> str:
    """The verb, for the name of the log file: `jobs.label.config` -> `label`."""
    package = config_type.__module__.removesuffix(".config")
    return package.rpartition(".")[2]


@contextlib.contextmanager
def _unexpected_errors_in_log() -> Iterator[None]:
    """Write the traceback of an error that is not the user's to the log file, and end with status 1."""
    try:
        yield
    except (UserError, SystemExit):
        raise
    except KeyboardInterrupt:
        traceback.print_exc()
        raise
    except BaseException as error:
        traceback.print_exc()
        if fault := storage_fault(error):
            raise UserError(f"{first_cause(error)}: {fault}.") from error
        terminal.say(f"error: {first_cause(error)}")
        terminal.say(f"log: {terminal.log_path()}")
        sys.exit(1)


def job_of(config_type: type[BaseModel]) -> Callable[[Any], Mapping[str, Any]]:
    """`run` of the verb that the config belongs to: `jobs.label.config` -> `jobs.label.job.run`."""
    package = config_type.__module__.removesuffix(".config")
    return importlib.import_module(f"{package}.job").run


def _leave_ray() -> None:
    """Shut Ray down before the report: its threads could print after it, and the report is the last line."""
    if "cluster.session" in sys.modules:
        sys.modules["cluster.session"].end()


def parse(config_type: type[Config], argv: list[str] | None = None) -> Config:
    """The config of a command line.

    Raises:
        UserError: a value out of range.
        SystemExit: unknown or missing options (status 2), or `--help` (status 0).
    """
    return tyro.cli(_as_function(config_type), args=argv, description=config_type.__doc__)


def _as_function(config_type: type[Config]) -> Callable[..., Config]:
    """A function with the config's fields as parameters.

    Given the class itself, tyro would print pydantic's message for an invalid value in a box. `--help` does
    not show a default of None, because the description says what it means.
    """

    def build(**values: Any) -> Config:
        return validated(config_type, values)

    hints, parameters = get_type_hints(config_type, include_extras=True), []
    for name, field in config_type.model_fields.items():
        default = (
            inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
        )
        hint = "" if default is None else None
        texts = tyro.conf.arg(help=field.description, help_behavior_hint=hint)
        annotation = Annotated[hints[name], texts]
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )
    build.__signature__ = inspect.Signature(parameters)
    build.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return build


def validated(config_type: type[Config], values: Any) -> Config:
    """The config of a mapping, such as the arguments of a Serve YAML file; a config is returned as it is.

    Raises:
        UserError: an unknown key, or a value out of range.
    """
    try:
        return config_type.model_validate(values)
    except ValidationError as error:
        raise UserError(explain(error, config_type)) from None


def profile_of(config: ProfileConfig) -> Profile:
    """Load the profile that a config names, and apply its `set` and `store`.

    Raises:
        UserError: no such profile, or a value of `set` that is malformed or that the profile refuses.
    """
    overrides = dict(map(_override, config.set))
    if isinstance(config, JobConfig) and config.store is not None:
        overrides["store"] = config.store
    return load_profile(config.profile, **overrides)


def _override(word: str) -> tuple[str, Any]:
    """`"align.beta=2"` -> `("align.beta", 2)`: the value is YAML, and an empty one is null."""
    key, equals, value = word.partition("=")
    if not key or not equals:
        raise UserError(f"--set {word!r} is not of the form key=value, such as align.beta=2.")
    try:
        return key, yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"--set {shown(word)}: {shown(value)} is not valid YAML.") from None


def settings(config: JobConfig) -> tuple[Profile, Any]:
    """The profile of a config, and the `Store` of its tables. Raises UserError as `profile_of` does."""
    from cluster.tables import Store  # LanceDB takes a second to import: `--help` does not wait for it

    profile = profile_of(config)
    return profile, Store(profile.store)


def merged(group: Section, config: BaseModel, **others: Any) -> Section:
    """A section of the profile, with fields replaced by the config's options of the same names.

    `others` replace further fields. A value of None keeps the profile's.

    Raises:
        UserError: the values do not fit together.
    """
    names = type(group).model_fields.keys() & type(config).model_fields.keys()
    options = {name: getattr(config, name) for name in names} | others
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return type(group).model_validate(group.model_dump() | given)
    except ValidationError as error:
        raise UserError(explain(error, type(group))) from None


def output_folder(folder: str | Path) -> Path:
    """The folder, made if absent. A verb calls this before its work, so that no work is lost.

    Raises:
        UserError: no files can be written into it.
    """
    path, name = Path(folder), shown(str(folder))
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(folder)):  # Path has removed the second slash
        raise UserError(f"{name} is an address: name a local folder for the output.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise UserError(f"The folder {name} cannot be written ({reason}): name another.") from None
    return path


def save_config(config: BaseModel, folder: str | Path) -> Path:
    """Write `resolved_config.yaml` into the folder, made if absent; returns its path.

    Raises UserError as `output_folder` does.
    """
    path = output_folder(folder) / "resolved_config.yaml"
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
