"""Shows the metrics of each epoch: the first worker appends them to a file, and the driver follows it."""

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

from cluster import terminal

POLL_S = 1.0
SHOWN = ("loss", "loss_preference", "loss_pt", "rewards/accuracies", "rewards/margins", "recall@1")


def write_epoch(path: Path, num_epochs: int, metrics: dict[str, float]) -> None:
    """Append an epoch's metrics as one JSON line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"num_epochs": num_epochs, **metrics}) + "\n")


@contextlib.contextmanager
def follow(path: Path) -> Iterator[None]:
    """While the context is open, show the epochs that are appended to the file."""
    done = threading.Event()
    start = path.stat().st_size if path.exists() else 0
    thread = threading.Thread(target=_follow, args=(path, start, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _follow(path: Path, position: int, done: threading.Event) -> None:
    while True:
        finished = done.wait(POLL_S)
        if path.exists():
            with path.open(encoding="utf-8") as file:
                file.seek(position)
                new = file.read()
            complete = new[: new.rfind("\n") + 1]
            position += len(complete.encode())
            for line in complete.splitlines():
                terminal.say(_epoch_line(json.loads(line)))
        if finished:
            return


def _epoch_line(epoch: dict[str, float]) -> str:
    values = " ".join(f"{name} {epoch[name]:.4f}" for name in SHOWN if name in epoch)
    return f"align: epoch {epoch['epoch']}/{epoch['num_epochs']}: {values} ({epoch['seconds']:.1f} s)"
