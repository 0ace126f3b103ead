"""Errors that the user can correct, and the sentences that report them."""

import contextlib
import difflib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # pydantic takes time to import, which the list of verbs does not need
    from pydantic import BaseModel, ValidationError


MAX_SENTENCE = 2000  # characters


class UserError(ValueError):
    """A user's mistake: one sentence that names what is wrong, its value and a remedy; no traceback."""


class JobFailure(RuntimeError):
    """A job that did not do its work, through no mistake in its command: one sentence; status 1."""


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End the process with status 2 and the sentence on stderr.

    If the reader of stdout, such as `head`, closes the pipe, the process exits quietly with 141 (SIGPIPE).
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # not by the interpreter, which would report a broken pipe
    except UserError as error:
        print(f"error: {_shortened(str(error))}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        _discard_stdout()
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:  # stdout is a file on a full disk, for example
        _discard_stdout()
        print(f"error: {error}.", file=sys.stderr)
        sys.exit(1)


def _discard_stdout() -> None:
    """Discard what stdout still holds: the interpreter would fail to write it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _shortened(sentence: str) -> str:
    """The sentence, without its middle if it is very long: its end names the way out."""
    half = MAX_SENTENCE // 2
    return sentence if len(sentence) <= MAX_SENTENCE else f"{sentence[:half]}...{sentence[-half:]}"


def shown(value: object, limit: int = 200) -> str:
    """The value as `repr` writes it, cut after `limit` characters: a message is one sentence."""
    text = repr(value)
    return text if len(text) <= limit + 20 else f"{text[:limit]}... ({len(text):,} characters)"


def brief(text: str, limit: int = 400) -> str:
    """The text on one line, cut after `limit` characters, without a full stop: libraries write many lines."""
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= limit else f"{line[:limit]}..."


def explain(error: "ValidationError", model: "type[BaseModel]") -> str:
    """One sentence for the errors of a model: each field with its value and what is allowed.

    For an unknown field, it suggests the one that was probably meant.
    """
    parts = []
    for item in error.errors():
        field = ".".join(map(str, item["loc"]))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            parts.append(f"{field} is unknown: {_suggestion(field, model)}")
        elif not field:
            parts.append(message)
        elif item["type"] == "missing" or isinstance(item["input"], Mapping):
            parts.append(f"{field}: {message}")
        else:
            parts.append(f"{field} = {shown(item['input'])}: {message}")
    text = "; ".join(parts)
    return text if text.endswith("?") else f"{text}."


def _suggestion(field: str, model: "type[BaseModel]") -> str:
    """The known field closest to this name, else all fields of its section."""
    section, _, name = field.rpartition(".")
    splits = [path.rpartition(".") for path in _paths(model)]
    siblings = [leaf for parent, _, leaf in splits if parent == section]
    if close := difflib.get_close_matches(name, siblings, n=1):
        return f"did you mean {f'{section}.{close[0]}'.lstrip('.')}?"
    if close := difflib.get_close_matches(name, [leaf for *_, leaf in splits], n=1, cutoff=0.8):
        return next(f"did you mean {parent}.{leaf}?" for parent, _, leaf in splits if leaf == close[0])
    return f"choose one of {', '.join(siblings)}"


def _paths(model: "type[BaseModel]", prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields: `align`, `align.mode`, ..."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        below: Any = field.annotation
        if hasattr(below, "model_fields"):
            yield from _paths(below, f"{prefix}{name}.")
