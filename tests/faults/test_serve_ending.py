"""How `kallos serve` ends: by signals before it is ready, while it serves, and while it stops."""

import json
import signal
import time

import pytest
from served import make_deployment


@pytest.fixture(scope="module")
def profile(tmp_path_factory) -> str:
    return make_deployment(tmp_path_factory.mktemp("serve")).profile


@pytest.fixture
def serving(start, profile):
    """Starts the server."""
    return lambda: start("-m", "serve_app", "--profile", profile, "--port", "0")


@pytest.mark.parametrize("delay_s", [1.0, 6.0])
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_before_the_search_is_ready_ends_the_server_in_one_word(serving, signum, status, delay_s):
    server = serving()
    server.wait_for("Starting Ray")
    time.sleep(delay_s)
    assert "Kallos answers" not in server.err.read_text()
    server.signal(signum)
    ended, lines = server.end()
    assert (ended, len(lines)) == (status, 2)


def test_signal_while_serving_is_the_normal_end_with_a_report(serving):
    server = serving()
    server.wait_for("Kallos answers")
    folder = server.folder()
    server.signal(signal.SIGINT)
    status, lines = server.end()
    assert status == 0 and lines[-1] == "Stopping after the running requests."
    assert "address" in json.loads(server.out.read_text())
    assert not folder.exists()


def test_second_signal_while_serving_ends_at_once_and_leaves_nothing(serving):
    server = serving()
    server.wait_for("Kallos answers")
    family, folder = server.family(), server.folder()
    server.signal(signal.SIGINT)
    server.wait_for("Stopping")
    server.signal(signal.SIGINT)
    status, lines = server.end(within_s=5)
    assert status == 130 and not any("Traceback" in line for line in lines)
    time.sleep(5)
    assert not folder.exists() and not any(process.is_running() for process in family)
