"""The soak report of `kallos bench serve`, for given responses, and how it finds its processes."""

import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import psutil
import pyarrow as pa

from lab.bench.serve import job as serve
from lab.bench.serve.load import Response
from lab.bench.serve.processes import command_lines


def test_failures_of_searches_and_of_feedback_are_reported_separately(monkeypatch):
    searches = [Response(status, 100.0 + i, 0.5, None) for i, status in enumerate((200, 503, 503, 0))]
    clicks = [
        Response(200, 100.0, 0.1, {"event_id": "kept"}),
        Response(200, 101.0, 0.1, {"event_id": "lost"}),
        Response(429, 102.0, 0.1, None),
        Response(500, 106.0, 0.1, None),
    ]

    async def search_and_click(*args):
        return searches, clicks

    monkeypatch.setattr(serve, "_search_and_click", search_and_click)
    store = SimpleNamespace(read=lambda *args: pa.table({"event_id": ["kept"]}))
    report = serve.soak(
        serve.BenchServeConfig(soak_s=0.0),
        SimpleNamespace(replicas=lambda: []),
        SimpleNamespace(store=store),
        np.random.default_rng(0),
    )
    assert report["searches"] == 4 and report["searches_failed_by_status"] == {"503": 2, "no answer": 1}
    assert report["feedback_failed_by_status"] == {"500": 1}
    assert (report["feedback_answered"], report["feedback_lost"]) == (2, 1)
    assert report["longest_outage_s"] == 4.6, "of searches and clicks together"


def test_command_lines_leave_out_what_has_ended():
    child = subprocess.Popen([sys.executable, "-c", "open(0).read()"], stdin=subprocess.PIPE)
    processes = [psutil.Process(), psutil.Process(child.pid)]
    assert "open(0).read()" in command_lines(processes)[processes[1]]
    assert child.stdin
    child.stdin.close()
    end = time.monotonic() + 30
    while processes[1].status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(0.01)
    assert list(command_lines(processes)) == processes[:1]
    child.wait()
    assert list(command_lines(processes)) == processes[:1]
