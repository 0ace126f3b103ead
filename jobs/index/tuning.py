"""Chooses the search effort of an ANN index: the fastest of a small grid that reaches the wanted recall.

Recall is measured against exact search; time, for one query at a time, as in serving.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa

from actors.encoder import Encoder
from actors.retriever import Effort, Retriever, last_measurement
from cluster.tables import SCHEMAS, Store, now
from jobs.index.ann import num_partitions

RECALL_AT = 10
EFS = (50, 100, 200, 400, 800)
REFINE_FACTORS = (1, 2, 4)


@dataclass(frozen=True)
class Measurement:
    """A setting with its recall@10 against exact search, in [0, 1], and the median time of a query, in ms."""

    effort: Effort
    recall_at_10: float
    p50_ms: float

    def row(self) -> dict[str, Any]:
        """Columns of the table `indexes`, and names in reports."""
        return {**asdict(self.effort), "recall_at_10": self.recall_at_10, "p50_ms": self.p50_ms}


def grid(num_rows: int) -> list[Effort]:
    """The settings to measure on a table of `num_rows`."""
    partitions = num_partitions(num_rows)
    probes = sorted({-(-partitions // 4), -(-partitions // 2), partitions})
    return [Effort(*setting) for setting in product(EFS, REFINE_FACTORS, probes)]


def sweep(store: Store, fingerprint: str, queries: np.ndarray) -> list[Measurement]:
    """Measure every setting of the grid on the encoder's table; queries: float32 [Q, D], Q >= 1."""
    exact = Retriever(store, fingerprint)
    true = exact.search(queries, RECALL_AT, exact=True)
    efforts = grid(exact.table.count_rows())
    searches = timed([Retriever(store, fingerprint, effort=effort) for effort in efforts], queries)
    return [
        Measurement(effort, recall(found, true), p50_ms)
        for effort, (found, p50_ms) in zip(efforts, searches, strict=True)
    ]


def timed(
    retrievers: Sequence[Retriever], queries: np.ndarray, *, exact: bool = False
) -> list[tuple[list[list[dict]], float]]:
    """For each retriever its results for the queries [Q, D], and the median time of a query in ms.

    The retrievers take turns, one query at a time, so that other load on the machine slows all of them alike.
    """
    for retriever in retrievers:
        retriever.search(queries[:1], RECALL_AT, exact=exact)  # the first search loads the index
    found: list[list[list[dict]]] = [[] for _ in retrievers]
    seconds: list[list[float]] = [[] for _ in retrievers]
    for query in queries:
        for index, retriever in enumerate(retrievers):
            started = perf_counter()
            found[index] += retriever.search(query[np.newaxis], RECALL_AT, exact=exact)
            seconds[index].append(perf_counter() - started)
    return [(rows, 1000 * median(times)) for rows, times in zip(found, seconds, strict=True)]


def recall(found: Sequence[list[dict]], true: Sequence[list[dict]]) -> float:
    """Share of the true nearest images among those found, mean over the queries, in [0, 1]."""
    pairs = zip(found, true, strict=True)
    return float(np.mean([len(_ids(some) & _ids(best)) / max(1, len(best)) for some, best in pairs]))


def choose(measurements: Sequence[Measurement], target: float) -> Measurement:
    """The fastest setting whose recall reaches the target, or else the one with the highest recall."""
    good = [each for each in measurements if each.recall_at_10 >= target]
    if good:
        return min(good, key=lambda each: each.p50_ms)
    return max(measurements, key=lambda each: (each.recall_at_10, -each.p50_ms))


def recall_queries(retriever: Retriever, encoder: Encoder, num_queries: int) -> np.ndarray:
    """Query vectors from evenly spaced rows, float32 [Q, D]: of captions, or the images' if none has one."""
    num_rows = retriever.table.count_rows()
    step = max(1, num_rows // num_queries)
    chosen = list(range(0, num_rows, step))[:num_queries]
    rows = retriever.table.to_lance().take(chosen, ["caption", "vector"])
    captions = [caption for caption in rows["caption"].to_pylist() if caption]
    return encoder.encode_texts(captions) if captions else np.array(rows["vector"].to_pylist(), np.float32)


def record(store: Store, row: dict[str, Any]) -> None:
    """Add a measurement to `indexes`; the newest row of an encoder is in effect.

    A measurement equal to that row is not added.
    """
    rows = pa.Table.from_pylist([row | {"measured_at": now()}], SCHEMAS["indexes"])
    (new,) = rows.to_pylist()  # with floats rounded as the table stores them
    if new != last_measurement(store, row["encoder"]) | {"measured_at": new["measured_at"]}:
        store.merge("indexes", rows, on=["encoder", "measured_at"])


def _ids(rows: list[dict]) -> set[str]:
    return {row["image_id"] for row in rows}
