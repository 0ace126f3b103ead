"""The search itself, free of HTTP, of Ray and of models: a query's way through one of several systems."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from cluster.tables import EncoderRecord, Store
from serve_app.batching import Batcher
from serve_app.models import FeedbackRequest, FeedbackResponse, Heatmap, SearchBase

COLUMNS = ("caption", "width_px", "height_px")
NUM_PREVIEWS_KEPT = 2048  # about 10 kB each


class Searcher(Protocol):
    """What searches one index: an `actors.retriever.Retriever`."""

    def search(self, vectors: np.ndarray, k: int, *, columns: Sequence[str]) -> list[list[dict[str, Any]]]:
        """float32 [Q, D] -> for each query its `k` nearest images, best first."""


@dataclass(frozen=True)
class System:
    """One encoder and the index of its own vectors: they change together or not at all."""

    record: EncoderRecord
    encode: Batcher
    retriever: Searcher
    num_rows: int
    recall_at_10: float | None


@dataclass(frozen=True)
class Found:
    """What a search gives; the fields are those of `models.SearchResponse`.

    rows: image_id, score and `COLUMNS`, best first. timings_ms: milliseconds per step.
    """

    search_id: str
    query: str
    rephrased: str
    system: str
    encoder: str
    rows: list[dict]
    next: str
    timings_ms: dict[str, float]


class Service:
    """Answers searches from one or more systems over one store."""

    def __init__(self, store: Store, systems: Mapping[str, System], examples: Sequence[str]) -> None:
        """`systems`: by alias, the default first. `examples`: queries to offer."""
        self.system_names = tuple(systems)
        self.systems = dict(systems)
        self.tastes: list[dict[str, str]] = []
        self._store = store
        self._images = store.open("images")
        self.examples = list(examples)
        self.preview = lru_cache(NUM_PREVIEWS_KEPT)(self._preview)

    def fault(self) -> str:
        """Why searches cannot be answered now, in one sentence, or ""."""
        return ""

    async def search(self, request: SearchBase, client: str) -> Found:
        """The answer to one search; `client` is who asks. Raises ApiError for what cannot be answered."""
        chosen = self.systems[request.system]
        started = perf_counter()
        vector = await chosen.encode(request.query)
        encoded = perf_counter()
        (rows,) = await asyncio.to_thread(
            chosen.retriever.search, vector[np.newaxis], request.k, columns=COLUMNS
        )
        done = perf_counter()
        seconds = {"encode": encoded - started, "search": done - encoded, "total": done - started}
        timings = {step: 1000 * value for step, value in seconds.items()}
        return Found("", request.query, "", request.system, chosen.record.encoder, rows, "", timings)

    def why(self, image_id: str, query: str, system: str) -> Heatmap:
        """Which parts of the image speak for the query. Raises ApiError for an unknown image or system."""
        raise NotImplementedError

    async def feedback(self, event: FeedbackRequest, client: str) -> FeedbackResponse:
        """Keep what a person chose; it is on the disk when this returns. Raises ApiError for a bad event."""
        raise NotImplementedError

    def delete(self, image_id: str) -> int:
        """Remove the image everywhere; returns the number of rows. Raises KeyError when there is none."""
        raise NotImplementedError

    def _preview(self, image_id: str) -> bytes:
        """The JPEG preview of an image.

        Raises:
            KeyError: the store has no image of that id. (Not cached: it may be ingested later.)
        """
        for _ in range(2):
            rows = (
                self._images.search().where(f"image_id = '{image_id}'").select(["preview"]).limit(1).to_list()
            )
            if rows:
                return rows[0]["preview"]
            self._images.checkout_latest()  # ingested since the table was opened?
        raise KeyError(image_id)
