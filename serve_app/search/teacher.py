"""The teacher as a system of the search: the cascade of `actors.cascade`, for one query at a time.

Its two engines are separate deployments that scale to zero. The first search starts them; until they run,
the teacher returns 503 with Retry-After.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from PIL import Image
from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError

from actors.cascade import cascade_order, encoder_ratings
from actors.engine import make_engine
from actors.images import UnusableImage, decode
from actors.judge import Judge
from actors.rephraser import Rephraser
from cluster.compat.serve import listen_as_ray_does
from cluster.profile import Label, LanguageModel
from serve_app.errors import ApiError
from serve_app.models import BaseSearchRequest
from serve_app.search.batched_search import ResultRow, SearchOptions
from serve_app.search.step_timer import StepTimer
from serve_app.search.systems import System

TEACHER = "teacher"
NUM_CANDIDATES = 50
AWAKE_S = 1.0  # a running engine answers a ping within this time
RETRY_AFTER_S = 5


class RephraserEngine:
    """A replica that holds the language model."""

    def __init__(self, model: LanguageModel, style: str) -> None:
        listen_as_ray_does()
        self._rephraser = Rephraser(model, style)
        self._lock = threading.Lock()

    async def ping(self) -> bool:
        """True, once the model is loaded."""
        return True

    async def rephrase(self, query: str) -> tuple[str, str]:
        """(rephrased query, error): one of the two is ""."""
        return await asyncio.to_thread(self._rephrase, query)

    def _rephrase(self, query: str) -> tuple[str, str]:
        with self._lock:
            return self._rephraser.rephrase([query])[0]


class JudgeEngine:
    """A replica that holds the multi-modal model."""

    def __init__(self, model: LanguageModel) -> None:
        listen_as_ray_does()
        self._judge = Judge(make_engine(model), model.image_px)
        self._lock = threading.Lock()

    async def ping(self) -> bool:
        """True, once the model is loaded."""
        return True

    async def rate(self, query: str, previews: Sequence[bytes]) -> np.ndarray:
        """Aesthetics of JPEG images and, given a query, their accuracy: float64 [1 or 2, N] in [1, 5].

        NaN where the engine gave no answer, or the preview cannot be read.
        """
        return await asyncio.to_thread(self._rate, query, previews)

    def _rate(self, query: str, previews: Sequence[bytes]) -> np.ndarray:
        images: list[Image.Image] = []
        readable: list[int] = []
        for index, jpeg in enumerate(previews):
            with contextlib.suppress(UnusableImage):
                images.append(decode(jpeg))
                readable.append(index)
        ratings = np.full((2 if query else 1, len(previews)), np.nan)
        with self._lock:
            ratings[0, readable] = self._judge.aesthetics(images)
            if query:
                ratings[1, readable] = self._judge.accuracy([query] * len(images), images)
        return ratings


class Handle(Protocol):
    """A deployment's handle: `handle.method.remote(...)` can be awaited."""

    def __getattr__(self, name: str) -> Any: ...


@dataclass(frozen=True)
class Ranked:
    """The results: all candidate images in the order of the cascade, with their aesthetics as score."""

    rephrased: str
    rows: list[ResultRow]


class Teacher:
    """Runs the cascade with the two engines."""

    def __init__(self, rephraser: Handle, judge: Handle, label: Label) -> None:
        self._engines = {"rephraser": rephraser, "judge": judge}
        self._label = label
        self._pings: dict[str, asyncio.Task] = {}

    async def answer(
        self,
        request: BaseSearchRequest,
        system: System,
        where: str,
        preview: Callable[[str], bytes],
        timer: StepTimer,
    ) -> Ranked:
        """The cascade, with the encoder and index of `system`.

        Raises ApiError: 503 while an engine starts, 422 for a search by anything but words and filters.
        """
        others = (request.image, request.negatives, request.tastes, request.beauty, request.diversity)
        if any(others) or request.cursor:
            raise ApiError(
                422,
                "teacher_takes_words",
                "The teacher accepts words and filters only, and returns one page.",
                "system",
            )
        await self._wake("rephraser", "judge")
        rephrased = await self.rephrase(request.query, timer)
        begun = perf_counter()
        query_vector, rephrased_vector = await asyncio.gather(
            system.encode_text(request.query), system.encode_text(rephrased)
        )
        begun = timer.record("encode", begun)
        (rows, _), (nearest, _) = await asyncio.gather(
            system.search((rephrased_vector, SearchOptions(NUM_CANDIDATES, where, with_vectors=True))),
            system.search((query_vector, SearchOptions(1, where))),
        )
        begun = timer.record("search", begun)
        rows, previews = await asyncio.to_thread(_with_previews, rows, preview)
        if not rows:
            return Ranked(rephrased, [])
        by_judge = self._label.semantic == "judge"
        aesthetics, *rest = await self._ask("judge", "rate", request.query if by_judge else "", previews)
        timer.record("judge", begun)
        if by_judge:
            accuracy = rest[0]
        else:
            similarities = np.stack([row["vector"] for row in rows]) @ query_vector
            accuracy = encoder_ratings(similarities, nearest[0]["score"], system.encoder.temperature)
        order = cascade_order(accuracy, aesthetics, threshold=self._label.min_accuracy)
        scores = np.nan_to_num(aesthetics, nan=1.0)
        return Ranked(rephrased, [_row(rows[index], float(scores[index])) for index in order])

    async def rephrase(self, query: str, timer: StepTimer) -> str:
        """The rephrased query. Raises ApiError (503) while the engine starts, or if it gives no answer."""
        await self._wake("rephraser")
        begun = perf_counter()
        rephrased, error = await self._ask("rephraser", "rephrase", query)
        if error:
            raise ApiError(503, "teacher_failed", f"The language model gave no usable answer: {error}.")
        timer.record("rephrase", begun)
        return rephrased

    async def _wake(self, *names: str) -> None:
        """Return when these engines run. Raises ApiError (503) with Retry-After while one starts.

        Serve starts an engine because a request waits for it, so an unanswered ping is not cancelled.
        """
        for name in names:
            if name not in self._pings or self._pings[name].done():
                self._pings[name] = asyncio.create_task(_ping(self._engines[name]))
        pings = {name: self._pings[name] for name in names}
        _, starting = await asyncio.wait(pings.values(), timeout=AWAKE_S)
        if starting:
            raise _starting()
        for name, ping in pings.items():
            if error := ping.exception():
                raise ApiError(503, "teacher_failed", f"The {name} does not start: {type(error).__name__}.")

    async def _ask(self, name: str, method: str, *args: object) -> Any:
        """The result of an engine's method. Raises ApiError (503) when the engine goes down meanwhile."""
        try:
            return await getattr(self._engines[name], method).remote(*args)
        except (RayActorError, DeploymentUnavailableError):
            raise _starting() from None


def _starting() -> ApiError:
    return ApiError(
        503,
        "teacher_starting",
        "The teacher's engines are starting: search again in a few seconds.",
        "system",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


async def _ping(handle: Handle) -> None:
    await handle.ping.remote()


def _with_previews(
    rows: Sequence[ResultRow], preview: Callable[[str], bytes]
) -> tuple[list[ResultRow], list[bytes]]:
    """The rows whose images have a preview, and the previews: ingest writes vectors before images."""
    found: list[tuple[ResultRow, bytes]] = []
    for row in rows:
        with contextlib.suppress(KeyError):
            found.append((row, preview(row["image_id"])))
    return [row for row, _ in found], [jpeg for _, jpeg in found]


def _row(row: ResultRow, score: float) -> ResultRow:
    return {key: value for key, value in row.items() if key != "vector"} | {"score": score}
