"""How a verb ends: by signals in each of its phases, and when it or a part of its Ray is killed."""

import os
import signal
import socket
import time
from collections.abc import Callable

import psutil
import pytest

from cluster import session
from lab.bench.serve.processes import command_lines

# After the driver was killed, docs/search.md, "Running it", promises that nothing is left after this time.
BOUND_S = 10.0


def assert_gone(processes, folder=None, within_s=BOUND_S):
    """All processes have ended, and the folder is removed, within the time."""
    _, alive = psutil.wait_procs(processes, timeout=within_s)
    assert not alive, list(command_lines(alive).values())
    give_up_s = time.monotonic() + within_s
    while folder and folder.exists():
        assert time.monotonic() < give_up_s, list(folder.iterdir())
        time.sleep(0.1)


def test_killed_driver_leaves_no_process_and_no_folder(waiting):
    verb = waiting()
    verb.wait_for("running")
    family, folder = verb.family(), verb.folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    verb.signal(signal.SIGKILL)
    verb.end()
    assert_gone(family, folder)


@pytest.mark.parametrize("part", ["raylet", "gcs_server"])
def test_killed_part_of_ray_ends_the_verb_with_one_sentence(waiting, part):
    verb = waiting()
    verb.wait_for("running")
    family, folder = verb.family(), verb.folder()
    verb.child(part).kill()
    status, lines = verb.end(within_s=20)
    assert status == 1
    assert (
        lines[2].startswith(f"error: Ray's process {part} has ended") and "run the command again" in lines[2]
    )
    assert lines[3].startswith("log: ") and len(lines) == 4
    assert_gone(family, folder)


ENDINGS = [(signal.SIGINT, 130, "Interrupted."), (signal.SIGTERM, 143, "Terminated.")]


@pytest.mark.parametrize(("signum", "status", "word"), ENDINGS)
@pytest.mark.parametrize(
    ("text", "delay_s"), [("Starting Ray", 0.3), ("Starting Ray", 2.5), ("running", 1.0)]
)
def test_signal_ends_a_verb_and_its_ray_in_one_word(waiting, text, delay_s, signum, status, word):
    verb = waiting()
    verb.wait_for(text)
    time.sleep(delay_s)
    family = verb.family()
    verb.signal(signum)
    ended, lines = verb.end(within_s=40)
    assert ended == status
    assert [line for line in lines if not line.startswith(("Starting Ray", "running"))] == [word]
    assert verb.out.read_text() == ""
    assert_gone(family)


def test_second_signal_ends_a_verb_at_once(waiting):
    verb = waiting()
    verb.wait_for("running")
    family, folder = verb.family(), verb.folder()
    verb.signal(signal.SIGINT)
    time.sleep(0.3)  # Ray is shutting down
    verb.signal(signal.SIGINT)
    status, lines = verb.end(within_s=5)
    assert status == 130
    assert not any("Traceback" in line for line in lines)
    assert_gone(family, folder)


def test_other_user_cannot_reach_the_sockets_of_ray_and_haproxy(waiting):
    if os.getuid() != 0:
        pytest.skip("only root can act as another user")
    verb = waiting()
    verb.wait_for("running")
    folder = verb.folder()
    sockets = [path for path in folder.rglob("*") if path.is_socket()]
    assert sockets and all(len(str(path)) <= 107 for path in sockets)
    assert refused_to_another_user(lambda: list(folder.iterdir()))
    for path in sockets:
        with socket.socket(socket.AF_UNIX) as client:
            assert refused_to_another_user(lambda client=client, path=path: client.connect(str(path))), path
        if path.name == "raylet":
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))  # its own user is let in


def refused_to_another_user(function: Callable[[], object]) -> bool:
    """Whether the function raises PermissionError in a process of the user `nobody`."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            function()
        except PermissionError:
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("ray.object_store_bytes=10000000000000", "is more than the memory of this machine"),
        (f"ray.num_cpus={session.MOST_CPUS + 1}", f"give at most {session.MOST_CPUS}"),
        ("ray.num_cpus=0", "greater than or equal to 1"),
    ],
)
def test_size_that_the_machine_cannot_hold_is_one_sentence(waiting, setting, words):
    status, lines = waiting("--set", setting).end()
    assert status == 2
    assert words in lines[-1] and "Traceback" not in "\n".join(lines)


@pytest.mark.parametrize("delay_s", [0.5, 1.0, 2.0, 4.0])
def test_signal_during_imports_and_parsing_prints_no_traceback(start, delay_s):
    verb = start("-c", "from jobs.cli import main; main()", "label", "--queries", "absent.txt")
    time.sleep(delay_s)
    verb.signal(signal.SIGINT)
    status, lines = verb.end()
    # -2: the signal killed the interpreter after the verb had written its sentence.
    assert (status, lines[-1]) == (130, "Interrupted.") or status in (2, -signal.SIGINT)
    assert "Traceback" not in "\n".join(lines)
