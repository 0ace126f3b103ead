"""`kallos serve`: deploy the search here and serve it until Ctrl-C or SIGTERM.

    python -m serve_app --profile mini --store runs/mini/store --port 8000

The last line of stdout is one JSON object: {"address", "seconds"}, printed when it has stopped.
"""

import json
import signal
import sys
import threading
import time

import tyro
from pydantic import ValidationError

from cluster.errors import UserError
from cluster.profile import explain
from serve_app.args import ServeArgs, settings


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, deploy, wait for a signal, take it down. Exit status 2 for a user's mistake."""
    stop = threading.Event()
    try:
        args = tyro.cli(ServeArgs, args=argv, prog="kallos serve", description=__doc__)
        report = run(args, stop)
    except (UserError, ValidationError) as error:
        print(f"error: {explain(error) if isinstance(error, ValidationError) else error}", file=sys.stderr)
        sys.exit(2)
    print(json.dumps(report), flush=True)


def run(args: ServeArgs, stop: threading.Event) -> dict:
    """Serve until SIGINT, SIGTERM or the caller's thread sets `stop`; returns address and seconds served."""
    settings(args)  # a wrong profile is told before Ray and torch, which take seconds to import
    from serve_app import app

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


if __name__ == "__main__":
    main()
