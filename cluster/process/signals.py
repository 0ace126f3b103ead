"""Ctrl-C and SIGTERM: the first one ends the work in order; after a second one, or 30 s, it ends at once.

The status is 130 or 143, as a shell reports it. Nothing prints a traceback.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# How long Ray's shutdown, exit handlers and `finally` blocks may take after a signal.
GRACE_S = 30.0
SENTENCES = {signal.SIGINT: "Interrupted.", signal.SIGTERM: "Terminated."}


class _Received:
    """The last signal. KeyboardInterrupt cannot carry it: Ray catches that and raises another one."""

    signum: signal.Signals = signal.SIGINT


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first signal, and exit with its status. Nested calls do nothing."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(SIGNALS[1]) is _first:
        yield
        return
    before = [signal.signal(signum, _first) for signum in SIGNALS]
    try:
        yield
    except KeyboardInterrupt:
        print(SENTENCES[_Received.signum], file=sys.stderr, flush=True)
        sys.exit(128 + _Received.signum)
    finally:
        for signum, handler in zip(SIGNALS, before, strict=True):
            signal.signal(signum, handler)
        atexit.register(_end_at_once_from_now_on)  # registered last, so it runs first at exit


def call_once(function: Callable[[], object]) -> None:
    """Call the function at the next signal; the one after it ends the process at once."""

    def call(_signum: int, _frame: FrameType | None) -> None:
        _end_at_once_from_now_on()
        function()

    for signum in SIGNALS:
        signal.signal(signum, call)


def _first(signum: int, _frame: FrameType | None) -> None:
    _Received.signum = signal.Signals(signum)
    _end_at_once_from_now_on()
    timer = threading.Timer(GRACE_S, _end_at_once, (signum, None))
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _end_at_once_from_now_on() -> None:
    for signum in SIGNALS:
        signal.signal(signum, _end_at_once)


def _end_at_once(signum: int, _frame: FrameType | None) -> None:
    end_process(128 + signum)


def end_process(status: int) -> None:
    """End the process without exit handlers; `reap.sh` ends the processes of Ray and removes their files."""
    os._exit(status)
