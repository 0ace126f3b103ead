"""Signals, and the temporary folder of a Ray that Kallos starts, without Ray."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from cluster.compat import ray_start
from cluster.errors import UserError
from cluster.process import session_folder
from cluster.profile import ROOT, load_profile
from cluster.session import MOST_CPUS, _check_size

VERB = """
import sys, time
from cluster.command import JobConfig, main
from cluster.process import signals

class WaitingConfig(JobConfig):
    '''Waits.'''

def run(config):
    print("ready")
    try:
        time.sleep(60)
    finally:
        %s

main(WaitingConfig, [], run=run)
"""


def started(end: str) -> subprocess.Popen:
    """A verb that waits; `end` is what it does when a signal arrives."""
    process = subprocess.Popen(
        [sys.executable, "-c", VERB % end],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process


def wait_until_ready(process: subprocess.Popen) -> None:
    """Wait until the verb runs: its log file is open and holds "ready"."""
    give_up_s = time.monotonic() + 60
    while time.monotonic() < give_up_s:
        logs = [Path(link) for link in _open_files(process.pid) if ".log" in link]
        if any("ready" in log.read_text() for log in logs):
            return
        time.sleep(0.05)
    raise AssertionError(process.communicate())


def _open_files(pid: int) -> list[str]:
    folder = Path(f"/proc/{pid}/fd")
    found = []
    for descriptor in folder.iterdir():
        try:
            found.append(os.readlink(descriptor))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("signum", "status", "word"),
    [(signal.SIGINT, 130, "Interrupted.\n"), (signal.SIGTERM, 143, "Terminated.\n")],
)
def test_signal_ends_a_verb_with_its_status_and_one_word(signum, status, word):
    process = started("pass")
    wait_until_ready(process)
    process.send_signal(signum)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (status, "", word)


def test_second_signal_ends_a_verb_that_is_slow_to_end():
    process = started("time.sleep(60)")
    wait_until_ready(process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=5)
    assert (process.returncode, out, err) == (143, "", "")


def test_signal_that_a_library_swallows_ends_the_verb_after_the_grace_period():
    code = """
        import time
        from cluster.process import signals
        signals.GRACE_S = 0.5
        with signals.handled():
            try:
                print("ready", flush=True)
                time.sleep(60)
            except BaseException:
                pass
            time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (143, b"")


@pytest.fixture
def parent(tmp_path, monkeypatch) -> Path:
    """The temporary folder of the system."""
    monkeypatch.setattr(session_folder.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(session_folder, "LONGEST_PARENT", 1000)
    return tmp_path


def test_folder_is_private_and_removed(parent):
    folder = session_folder.make()
    try:
        assert folder.parent == parent and folder.stat().st_mode & 0o777 == 0o700
        assert sorted(path.name for path in folder.iterdir()) == ["ray", "tmp"]
    finally:
        session_folder.remove(folder)
    assert list(parent.iterdir()) == []
    session_folder.remove(folder)


def test_process_with_an_open_file_in_the_folder_is_killed_with_it(parent):
    folder = session_folder.make()
    with (folder / "ray" / "agent.log").open("w") as log:
        agent = subprocess.Popen(["sleep", "60"], stdout=log)
    session_folder.remove(folder)
    assert agent.wait(timeout=10) == -signal.SIGKILL


def test_folder_is_removed_when_its_process_is_killed(parent):
    code = """
        import sys, tempfile, time
        from cluster.process import session_folder
        session_folder.LONGEST_PARENT = 1000
        print(session_folder.make(), flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    environment = os.environ | {"TMPDIR": str(parent)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert folder.is_dir()
        process.kill()
    give_up_s = time.monotonic() + 10
    while folder.exists() and time.monotonic() < give_up_s:
        time.sleep(0.05)
    assert not folder.exists()


def test_next_start_removes_only_folders_whose_process_is_gone(parent, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "kept").touch()
    (parent / f"{session_folder.PREFIX}linked").symlink_to(elsewhere)
    (parent / f"{session_folder.PREFIX}gone" / "ray").mkdir(parents=True)
    (parent / "kallos-bench-x").mkdir()
    living = session_folder.make()
    try:
        session_folder.remove_abandoned(parent)
        left = {path.name for path in parent.iterdir()}
        assert left == {living.name, f"{session_folder.PREFIX}linked", "kallos-bench-x"}
        assert (elsewhere / "kept").exists()
    finally:
        session_folder.remove(living)


def test_folder_of_another_user_is_left_alone(parent):
    if os.getuid() != 0:
        pytest.skip("only root can make a folder of another user")
    other = parent / f"{session_folder.PREFIX}other"
    other.mkdir()
    os.chown(other, 65534, 65534)
    session_folder.remove_abandoned(parent)
    assert other.exists()


def test_temporary_folder_that_cannot_be_written_is_refused_in_one_sentence(parent, monkeypatch):
    monkeypatch.setattr(session_folder.tempfile, "gettempdir", lambda: "/proc/no/such")
    with pytest.raises(UserError, match=r"/proc/no/such cannot be written .*set TMPDIR"):
        session_folder.make()


def test_temporary_folder_with_a_long_path_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(session_folder.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = session_folder.make()
    session_folder.remove(folder)
    assert folder.parent == Path("/tmp")
    longest = f"/{'p' * (session_folder.LONGEST_PARENT - 1)}/{folder.name}/{'n' * 56}/admin.1234567.tmp"
    assert len(longest) == 107


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"object_store_bytes": 10**15}, "more than the memory of this machine"),
        ({"num_cpus": MOST_CPUS + 1}, f"give at most {MOST_CPUS}"),
    ],
)
def test_size_of_ray_that_the_machine_cannot_hold_is_refused(sizes, words):
    with pytest.raises(UserError, match=words):
        _check_size(load_profile("mini", ray=sizes).ray)


def test_small_shared_memory_is_announced(monkeypatch, capsys):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 64_000_000}))
    _check_size(load_profile("mini").ray)
    assert "/dev/shm has 64,000,000 bytes free" in capsys.readouterr().err


def test_start_on_this_machine_alone_changes_settings_that_ray_has_and_restores_them():
    from ray._private import ray_constants, utils

    before = ray_constants.ENABLE_RAY_CLUSTER, ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER
    handler = utils.set_sigterm_handler
    with ray_start.on_this_machine_alone():
        from ray.util import get_node_ip_address

        assert get_node_ip_address() == "127.0.0.1", "on_this_machine_alone: Ray looks elsewhere"
        assert utils.set_sigterm_handler is not handler
    after = ray_constants.ENABLE_RAY_CLUSTER, ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER
    assert (after, utils.set_sigterm_handler) == (before, handler)
