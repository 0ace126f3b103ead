"""The lines and progress bars of a verb, and the log file that takes everything else."""

import os
import pty
import subprocess
import sys
import time

import pytest

from cluster import terminal
from cluster.profile import ROOT


def test_library_output_goes_to_the_log_and_own_lines_to_stderr(capfd):
    with terminal.captured("test") as log:
        print("from Python")
        os.write(2, b"from C\n")
        subprocess.run(["echo", "from a child"], check=True)
        terminal.say("own line")
    print("afterwards")
    out, err = capfd.readouterr()
    assert (out, err) == ("afterwards\n", "own line\n")
    assert set(log.read_text().split("\n")) == {"from Python", "from C", "from a child", ""}
    assert log.stat().st_mode & 0o777 == 0o600
    log.unlink()


def test_output_is_restored_after_an_error(capfd):
    with pytest.raises(ZeroDivisionError), terminal.captured("test") as log:
        raise ZeroDivisionError
    assert terminal.log_path() is None
    print("afterwards")
    assert capfd.readouterr().out == "afterwards\n"
    log.unlink()


def test_nested_capture_shares_one_log():
    with terminal.captured("outer") as outer, terminal.captured("inner") as inner:
        assert inner == outer
    outer.unlink()


def test_progress_writes_few_plain_lines_without_a_terminal(capfd):
    with terminal.progress("label", "queries", total=3) as update:
        for done in range(4):
            update(done, errors=1)
    assert capfd.readouterr().err == "label: 3 of 3 queries, 1 errors, 0 s\n"


def test_progress_without_updates_writes_nothing(capfd):
    with terminal.progress("label", "queries"):
        pass
    assert capfd.readouterr().err == ""


def test_progress_draws_a_bar_in_a_terminal():
    code = (
        "from cluster import terminal\n"
        "with terminal.captured('test') as log:\n"
        "    with terminal.progress('label', 'queries', total=4) as update:\n"
        "        print('noise')\n"
        "        update(4, errors=2)\n"
        "        terminal.say('own line [1]')\n"
        "log.unlink()\n"
    )
    main, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    subprocess.run(
        [sys.executable, "-c", code], stderr=child, stdout=child, cwd=ROOT, env=environment, check=True
    )
    os.close(child)
    shown = os.read(main, 100_000).decode()
    assert "4/4" in shown and "queries, 2 errors" in shown and "own line [1]" in shown
    assert "noise" not in shown


def test_logs_older_than_a_week_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(terminal.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(terminal.tempfile, "tempdir", str(tmp_path))
    old, new, other = tmp_path / "kallos-a.log", tmp_path / "kallos-b.log", tmp_path / "other.log"
    for path in (old, new, other):
        path.write_text("")
    for path in (old, other):
        os.utime(path, (time.time() - 8 * 86_400,) * 2)
    with terminal.captured("test"):
        pass
    assert not old.exists() and new.exists() and other.exists()
