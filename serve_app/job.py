"""Deploys the search here and serves it until Ctrl-C or SIGTERM."""

import signal
import sys
import threading
import time

from serve_app.config import ServeArgs, settings


def run(args: ServeArgs, stop: threading.Event | None = None) -> dict:
    """Serve until SIGINT, SIGTERM or the caller's thread sets `stop`; returns address and seconds served."""
    settings(args)  # a wrong profile is refused before Ray and torch, which take seconds to import
    from serve_app import app

    stop = stop or threading.Event()
    address = app.deploy(args)
    started = time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM):  # after Ray's own handlers, which end the process at once
        signal.signal(number, lambda *_: stop.set())
    print(
        f"Kallos answers at {address} (API at {address}/docs). Ctrl-C ends it.", file=sys.stderr, flush=True
    )
    stop.wait()
    print("Stopping: answers under way are finished first.", file=sys.stderr, flush=True)
    app.shutdown()
    return {"address": address, "seconds": round(time.monotonic() - started, 1)}
