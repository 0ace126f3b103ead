"""Which requests an engine was answering when its process died.

Ray restarts a dead actor and gives it the same batch again, which would kill it again if one request is the
reason. So a process writes down the requests that its engine is answering, in a file of its own. A file that
outlives its process is the record of a death: the next process asks those requests in smaller parts, and
refuses a request that was alone in flight at a death.

The files lie in the folder of Ray's session on the node. An actor that restarts on another node misses them
and asks the whole batch again.
"""

import contextlib
import hashlib
import itertools
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ray
from PIL import Image

from cluster.compat import ray_core
from cluster.errors import JobFailure

# Requests in flight at a death are asked again in this many parts: a batch of 256 costs three restarts.
SPLIT = 16
# After this many deaths in a row without a single answer, the engine itself is taken to be broken.
MAX_FRUITLESS = 4
# Older deaths are ignored: the model or the machine may have changed since.
MAX_AGE_S = 3600.0
UNKNOWN_CAUSE = "a crash in native code, or a lack of memory"


@dataclass(frozen=True)
class Death:
    """A process that died while its engine loaded or answered.

    keys: the requests in flight. num_answered: calls that it had answered. cause: "" if it is unknown.
    """

    keys: tuple[str, ...]
    num_answered: int
    cause: str


class InFlight:
    """The record of this process, and the deaths of earlier ones."""

    def __init__(self, folder: Path | None, max_fruitless: float = MAX_FRUITLESS) -> None:
        """`folder`: shared by all processes of the job on this node; None records nothing."""
        self.file = folder / f"{os.getpid()}.json" if folder else None
        self.num_answered = 0
        self.max_fruitless = max_fruitless
        self.deaths = read_deaths(folder) if folder else []
        self._num_deaths = Counter(key for death in self.deaths for key in death.keys)
        self._smallest: dict[str, int] = {}
        for death in self.deaths:
            for key in death.keys:
                self._smallest[key] = min(len(death.keys), self._smallest.get(key, len(death.keys)))

    def parts(self, keys: Sequence[str]) -> list[list[int]]:
        """Positions of the requests that are asked together, the least suspicious first."""
        by_size: dict[float, list[int]] = {}
        for position, key in enumerate(keys):
            by_size.setdefault(self._smallest.get(key, math.inf), []).append(position)
        parts = []
        for size, positions in sorted(by_size.items(), reverse=True):
            length = len(positions)
            if size < math.inf:
                length = max(1, int(size) // SPLIT)
                # Ordered by hash, so that neighbours that all kill the engine do not follow each other.
                positions.sort(key=lambda position: keys[position])
            parts += [positions[start : start + length] for start in range(0, len(positions), length)]
        return parts

    def is_culprit(self, key: str) -> bool:
        """Whether the request was alone at a death, and in two deaths in all: one may have another reason."""
        return self._smallest.get(key) == 1 and self._num_deaths[key] > 1

    def cause_of(self, key: str) -> str:
        """What is known about the death of a request."""
        causes = (death.cause for death in self.deaths if key in death.keys and death.cause)
        return next(causes, UNKNOWN_CAUSE)

    def check(self) -> None:
        """Raise JobFailure when the last processes died without a single answer."""
        fruitless = list(itertools.takewhile(lambda death: not death.num_answered, reversed(self.deaths)))
        if len(fruitless) >= self.max_fruitless and not self.num_answered:
            cause = next((death.cause for death in reversed(fruitless) if death.cause), UNKNOWN_CAUSE)
            raise JobFailure(f"The engine died {len(fruitless)} times in a row without an answer: {cause}.")

    def begin(self, keys: Sequence[str], cause: str = "") -> None:
        """Write down the requests that are in flight from now on."""
        if self.file:
            record = {"keys": list(keys), "num_answered": self.num_answered, "cause": cause}
            draft = self.file.with_suffix(".draft")
            draft.write_text(json.dumps(record), encoding="utf-8")
            draft.replace(self.file)

    def end(self) -> None:
        """Nothing is in flight any more."""
        if self.file:
            self.file.unlink(missing_ok=True)


def key_of(messages: Any, images: Sequence[Image.Image], *others: object) -> str:
    """16 hex characters that identify a request; of each image they depend on a few pixels only."""
    digest = hashlib.sha256(repr((messages, others)).encode("utf-8", "surrogatepass"))
    for image in images:
        digest.update(repr(image.size).encode())
        digest.update(image.resize((8, 8), Image.Resampling.NEAREST).tobytes())
    return digest.hexdigest()[:16]


def read_deaths(folder: Path) -> list[Death]:
    """The deaths recorded in the folder, the oldest first."""
    found = []
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            died_at = path.stat().st_mtime
            if time.time() - died_at < MAX_AGE_S and not _is_running(int(path.stem)):
                record = json.loads(path.read_text(encoding="utf-8"))
                death = Death(tuple(record["keys"]), int(record["num_answered"]), str(record["cause"]))
                found.append((died_at, death))
    return [death for _, death in sorted(found, key=lambda item: item[0])]


def _is_running(pid: int) -> bool:
    """Whether the process runs; one that has ended may stay in the table of processes for a moment."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
    except FileNotFoundError:
        return False
    return state.split()[0] not in ("Z", "X")


@cache
def of_process() -> InFlight:
    """The record of this process. Outside a Ray actor nothing restarts it, so it records nothing."""
    if not (ray.is_initialized() and ray.get_runtime_context().get_actor_id()):
        return InFlight(None)
    context = ray.get_runtime_context()
    folder = ray_core.session_folder() / f"kallos-in-flight-{context.get_job_id()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Serve restarts a replica for as long as it is deployed: no number of deaths may disable it.
    return InFlight(folder, math.inf if _in_replica() else MAX_FRUITLESS)


def _in_replica() -> bool:
    """Whether this process is a replica of Serve. Others do not import it: that takes a second."""
    serve = sys.modules.get("ray.serve")
    if serve is None:
        return False
    try:
        serve.get_replica_context()
    except serve.exceptions.RayServeException:
        return False
    return True
