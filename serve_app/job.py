"""Deploys the search here and serves it until Ctrl-C or SIGTERM."""

import threading
import time

from cluster import terminal
from cluster.process import signals
from serve_app.config import ServeConfig, resolve_profile


def run(config: ServeConfig, stop: threading.Event | None = None) -> dict:
    """Serve until SIGINT, SIGTERM or another thread sets `stop`; returns address and seconds served."""
    resolve_profile(config)  # an error is reported before the slow imports of Ray and torch
    from serve_app import app

    stop = stop or threading.Event()
    address = app.deploy(config)
    started = time.monotonic()
    signals.call_once(stop.set)
    terminal.say(f"Kallos answers at {address} (API at {address}/docs). Press Ctrl-C to stop.")
    stop.wait()
    terminal.say("Stopping after the running requests.")
    app.shutdown()
    return {"address": address, "seconds": round(time.monotonic() - started, 1)}
