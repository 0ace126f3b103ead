"""Processes that the tests of faults start, watch, and end."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cluster.profile import ROOT
from lab.bench.serve.processes import command_lines

START_TIMEOUT_S = 200.0


class Running:
    """A command with its stdout and stderr in files."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.out, self.err = folder / "out.txt", folder / "err.txt"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, *words], stdout=out, stderr=err, cwd=ROOT, env=environment
            )

    def wait_for(self, text: str) -> None:
        """Wait until the text is on stderr."""
        give_up_s = time.monotonic() + START_TIMEOUT_S
        while text not in self.err.read_text():
            assert self.process.poll() is None and time.monotonic() < give_up_s, self.err.read_text()
            time.sleep(0.05)

    def family(self) -> list[psutil.Process]:
        """The process and all that it started, directly or not."""
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]

    def child(self, name: str) -> psutil.Process:
        """The child whose program has this name."""
        words_of = command_lines(self.family())
        return next(child for child, words in words_of.items() if words and Path(words[0]).name == name)

    def folder(self) -> Path:
        """The temporary folder of its Ray."""
        option = "--raylet_socket_name="
        (socket,) = (word for word in self.child("raylet").cmdline() if word.startswith(option))
        return Path(socket.removeprefix(option)).parents[3]

    def signal(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    def end(self, within_s: float = 60.0) -> tuple[int, list[str]]:
        """Its exit status, negative for the signal that killed it, and the lines on stderr."""
        status = self.process.wait(within_s)
        return status, self.err.read_text().splitlines()


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Running]]:
    """Starts a Python script or module with its options; what still runs at the end is killed."""
    started: list[Running] = []

    def begin(*words: str) -> Running:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(Running(list(words), folder))
        return started[-1]

    yield begin
    for running in started:
        if running.process.poll() is None:
            for process in running.family():
                with contextlib.suppress(psutil.Error):
                    process.kill()


@pytest.fixture
def waiting(start) -> Callable[..., Running]:
    """Starts the waiting verb."""
    script = str(Path(__file__).with_name("waiting_verb.py"))
    return lambda *options: start(script, "--set", "ray.object_store_bytes=100000000", *options)
