"""What a verb shows the person who runs it: its own lines and progress bars. All else goes to a log file.

    with terminal.captured("label"):
        terminal.say("label: 12 of 64 queries are labelled already")
        with terminal.progress("label", "queries", total=52) as update:
            update(8, errors=1)

In a terminal `progress` draws one bar; elsewhere (a log, a Ray job) it writes a plain line now and then.
"""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cluster.errors import UserError

SECONDS_PER_LINE = 5.0
SECONDS_LOGS_ARE_KEPT = 7 * 86_400


class _State:
    """The process's own stderr while it is captured, the log that replaces it, and the bar on the screen."""

    stderr: TextIO | None = None
    log: Path | None = None
    bar: Progress | None = None


class Update(Protocol):
    """Reports how much is done, in units of the total, and counts worth showing."""

    def __call__(self, done: int, **counts: int) -> None: ...


def say(line: str) -> None:
    """Write a line to the process's own stderr, above the progress bar if there is one."""
    if _State.bar is not None:
        _State.bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
    else:
        print(line, file=_stderr(), flush=True)


def log_path() -> Path | None:
    """The file that library output goes to, None when it is not captured."""
    return _State.log


@contextlib.contextmanager
def captured(verb: str) -> Iterator[Path]:
    """Send what libraries, C code and child processes print to a log file; yields its path.

    `say` and `progress` still reach the terminal. Log files are kept for a week. Nested calls share one log.

    Raises:
        UserError: the log file cannot be written.
    """
    if _State.log is not None:
        yield _State.log
        return
    _remove_old_logs()
    try:
        handle, name = tempfile.mkstemp(prefix=f"kallos-{verb}-", suffix=".log")
    except OSError as error:
        raise UserError(
            f"The log file cannot be written to the temporary folder ({error}): free space there, make it "
            "writable, or set TMPDIR to another folder."
        ) from None
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with (
        os.fdopen(saved[1], "w", buffering=1, encoding="utf-8", errors="replace") as stderr,
        os.fdopen(handle, "w", buffering=1, encoding="utf-8", errors="replace") as log,
    ):
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        _State.stderr, _State.log = stderr, Path(name)
        try:
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                yield _State.log
        finally:
            _State.stderr = _State.log = None
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(saved[0])


@contextlib.contextmanager
def progress(verb: str, unit: str, total: int | None = None) -> Iterator[Update]:
    """Show a verb's progress; yields the function that updates it.

    Args:
        verb: the first word of the line or bar.
        unit: what is counted, in the plural.
        total: how many there are, None if unknown.
    """
    if _stderr().isatty() and _State.bar is None:
        with _bar(verb, unit, total) as update:
            yield update
    else:
        lines = _Lines(verb, unit, total)
        yield lines.update
        lines.finish()


@contextlib.contextmanager
def _bar(verb: str, unit: str, total: int | None) -> Iterator[Update]:
    from rich.console import Console

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
    )
    console = Console(file=_stderr())
    # Rich's own redirection would show on the screen what libraries print.
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as bar:
        task = bar.add_task(verb, total=total, counts=unit)
        _State.bar = bar
        try:
            yield lambda done, **counts: bar.update(task, completed=done, counts=_text(unit, counts))
        finally:
            _State.bar = None


class _Lines:
    """Progress as plain lines, at most one every `SECONDS_PER_LINE`, and one at the end."""

    def __init__(self, verb: str, unit: str, total: int | None) -> None:
        self.verb, self.unit = verb, unit
        self.of_total = "" if total is None else f" of {total}"
        self.started = self.shown = time.monotonic()
        self.pending = self.last = ""

    def update(self, done: int, **counts: int) -> None:
        now = time.monotonic()
        passed = f"{now - self.started:.0f} s"
        self.pending = f"{self.verb}: {done}{self.of_total} {_text(self.unit, counts)}, {passed}"
        if now - self.shown >= SECONDS_PER_LINE:
            self.shown = now
            self.finish()

    def finish(self) -> None:
        if self.pending not in ("", self.last):
            say(self.pending)
            self.last = self.pending


def _text(unit: str, counts: dict[str, int]) -> str:
    return ", ".join([unit, *(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())])


def _stderr() -> TextIO:
    return _State.stderr or sys.stderr


def _remove_old_logs() -> None:
    for path in Path(tempfile.gettempdir()).glob("kallos-*.log"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > SECONDS_LOGS_ARE_KEPT:
                path.unlink()
