"""The command lines of running processes."""

import contextlib
from collections.abc import Iterable

import psutil


def command_lines(processes: Iterable[psutil.Process]) -> dict[psutil.Process, list[str]]:
    """The words of each command line, without the processes that have ended since they were listed."""
    words = {}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # gone, or a zombie that nobody has waited for yet
            words[process] = process.cmdline()
    return words
