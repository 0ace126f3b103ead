"""The teacher online: the cascade that alignment distils, for comparison.

Rephrase, retrieve with the baseline, drop what is inaccurate, order the rest by judged beauty. Its two
engines are deployments of their own that scale to zero: the first question starts them, and until they run
the answer is 503 with Retry-After.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError

from actors.cascade import cascade_order, encoder_ratings
from actors.engine import make_engine
from actors.images import decode
from actors.judge import Judge
from actors.rephraser import MODEL_STYLES, compose, rephrase
from cluster.profile import Label, LanguageModel
from serve_app.http.errors import ApiError
from serve_app.http.models import SearchBase
from serve_app.search.batched_search import Asked, Row
from serve_app.search.clock import Clock
from serve_app.search.systems import System

TEACHER = "teacher"
NUM_CANDIDATES = 50
AWAKE_S = 1.0  # an engine that runs answers within this
RETRY_AFTER_S = 5


class RephraserEngine:
    """A replica that holds the language model."""

    def __init__(self, model: LanguageModel, style: str) -> None:
        self._style = style
        self._engine = make_engine(model) if style in MODEL_STYLES else None
        self._lock = threading.Lock()

    async def ping(self) -> bool:
        """Answers once the model is loaded."""
        return True

    async def rephrase(self, query: str) -> tuple[str, str]:
        """(rephrased, error): one of the two is ""."""
        return await asyncio.to_thread(self._rephrase, query)

    def _rephrase(self, query: str) -> tuple[str, str]:
        if self._engine is None:
            return compose(query, self._style, {}), ""
        with self._lock:
            return rephrase(self._engine, [query], self._style)[0]


class JudgeEngine:
    """A replica that holds the multi-modal model."""

    def __init__(self, model: LanguageModel) -> None:
        self._judge = Judge(make_engine(model), model.image_px)
        self._lock = threading.Lock()

    async def ping(self) -> bool:
        """Answers once the model is loaded."""
        return True

    async def rate(self, query: str, previews: Sequence[bytes]) -> np.ndarray:
        """Beauty of JPEG images, and with a query their accuracy: float64 [2 or 1, N] in [1, 5], NaN where
        unanswered.
        """
        return await asyncio.to_thread(self._rate, query, previews)

    def _rate(self, query: str, previews: Sequence[bytes]) -> np.ndarray:
        images = [decode(jpeg) for jpeg in previews]
        with self._lock:
            ratings = [self._judge.aesthetics(images)]
            if query:
                ratings.append(self._judge.accuracy([query] * len(images), images))
        return np.stack(ratings)


class Handle(Protocol):
    """A deployment's handle: `handle.method.remote(...)` can be awaited."""

    def __getattr__(self, method: str) -> Any: ...


@dataclass(frozen=True)
class Ranked:
    """The cascade's answer: all candidates in order, with the judge's beauty as score."""

    rephrased: str
    rows: list[Row]


class Teacher:
    """Asks the two engines in turn."""

    def __init__(self, rephraser: Handle, judge: Handle, label: Label) -> None:
        self._engines = {"rephraser": rephraser, "judge": judge}
        self._label = label
        self._pings: dict[str, asyncio.Task] = {}

    async def answer(
        self,
        request: SearchBase,
        system: System,
        where: str,
        preview: Callable[[str], bytes],
        clock: Clock,
    ) -> Ranked:
        """The cascade over the system. Raises ApiError (503) while an engine starts, (422) for a search that
        is not one of words alone.
        """
        if request.image or request.negatives or request.tastes or request.diversity or request.cursor:
            raise ApiError(
                422, "teacher_takes_words", "The teacher answers words and filters, in one page.", "system"
            )
        await self.wake()
        begun = perf_counter()
        rephrased, error = await self._ask("rephraser", "rephrase", request.query)
        if error:
            raise ApiError(503, "teacher_failed", f"The language model gave no usable answer: {error}.")
        begun = clock.step("rephrase", begun)
        asked, told = await asyncio.gather(system.encode(request.query), system.encode(rephrased))
        begun = clock.step("encode", begun)
        (rows, _), (nearest, _) = await asyncio.gather(
            system.find((told, Asked(NUM_CANDIDATES, where, with_vectors=True))),
            system.find((asked, Asked(1, where))),
        )
        begun = clock.step("search", begun)
        rows, previews = await asyncio.to_thread(_with_previews, rows, preview)
        if not rows:
            return Ranked(rephrased, [])
        by_judge = self._label.semantic == "judge"
        ratings = await self._ask("judge", "rate", request.query if by_judge else "", previews)
        clock.step("judge", begun)
        if by_judge:
            accuracy = ratings[1]
        else:
            similarities = np.stack([row.pop("vector") for row in rows]) @ asked
            accuracy = encoder_ratings(similarities, nearest[0]["score"], system.encoder.temperature)
        order = cascade_order(accuracy, ratings[0], threshold=self._label.min_accuracy)
        beauty = np.nan_to_num(ratings[0], nan=1.0)
        return Ranked(rephrased, [_row(rows[place], float(beauty[place])) for place in order])

    async def wake(self) -> None:
        """Return when both engines run. Raises ApiError (503) with Retry-After while one starts.

        A question that waits is what tells Serve to start an engine, so it is left waiting.
        """
        for name, handle in self._engines.items():
            if name not in self._pings or self._pings[name].done():
                self._pings[name] = asyncio.create_task(_ping(handle))
        _, starting = await asyncio.wait(self._pings.values(), timeout=AWAKE_S)
        if starting:
            raise _starting()
        for name, ping in self._pings.items():
            if error := ping.exception():
                raise ApiError(503, "teacher_failed", f"The {name} does not start: {type(error).__name__}.")

    async def _ask(self, name: str, method: str, *args: object) -> Any:
        """What an engine's method returns. Raises ApiError (503) when the engine goes down meanwhile."""
        try:
            return await getattr(self._engines[name], method).remote(*args)
        except (RayActorError, DeploymentUnavailableError):
            raise _starting() from None


def _starting() -> ApiError:
    return ApiError(
        503,
        "teacher_starting",
        "The teacher's engines are starting: ask again in a few seconds.",
        "system",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


async def _ping(handle: Handle) -> None:
    await handle.ping.remote()


def _with_previews(rows: Sequence[Row], preview: Callable[[str], bytes]) -> tuple[list[Row], list[bytes]]:
    """The rows that can be shown to the judge, and their previews: ingest writes vectors before images."""
    shown: list[tuple[Row, bytes]] = []
    for row in rows:
        with contextlib.suppress(KeyError):
            shown.append((row, preview(row["image_id"])))
    return [row for row, _ in shown], [jpeg for _, jpeg in shown]


def _row(row: Row, score: float) -> Row:
    return {key: value for key, value in row.items() if key != "vector"} | {"score": score}
