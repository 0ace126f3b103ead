"""How hard an ANN index must be searched: a small grid of settings is measured, the fastest good one kept.

Recall is that against exact search, milliseconds are those of one query at a time: what a person waits for.
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
from actors.retriever import Effort, Retriever
from cluster.schemas import key_of
from cluster.tables import SCHEMAS, Store, now
from jobs.index.ann import num_partitions

RECALL_AT = 10
EFS = (50, 100, 200, 400, 800)
REFINE_FACTORS = (1, 2, 4)
KEY = ["encoder", "measured_at"]


@dataclass(frozen=True)
class Measured:
    """One setting: recall@10 against exact search, in [0, 1], and the median time of a query, in ms."""

    effort: Effort
    recall_at_10: float
    p50_ms: float

    def row(self) -> dict[str, Any]:
        """As reports and the table `indexes` name it."""
        return {**asdict(self.effort), "recall_at_10": self.recall_at_10, "p50_ms": self.p50_ms}


def grid(num_rows: int) -> list[Effort]:
    """The settings to try on a table of so many rows."""
    partitions = num_partitions(num_rows)
    probes = sorted({-(-partitions // 4), -(-partitions // 2), partitions})
    return [Effort(*setting) for setting in product(EFS, REFINE_FACTORS, probes)]


def sweep(store: Store, fingerprint: str, queries: np.ndarray) -> list[Measured]:
    """Measure every setting of the grid on the encoder's table with queries float32 [Q, D], Q >= 1."""
    exact = Retriever(store, fingerprint)
    true = exact.search(queries, RECALL_AT, exact=True)
    efforts = grid(exact.table.count_rows())
    answers = timed([Retriever(store, fingerprint, effort=effort) for effort in efforts], queries)
    return [
        Measured(effort, recall(found, true), p50_ms)
        for effort, (found, p50_ms) in zip(efforts, answers, strict=True)
    ]


def timed(
    retrievers: Sequence[Retriever], queries: np.ndarray, *, exact: bool = False
) -> list[tuple[list[list[dict]], float]]:
    """For each retriever its answers to the queries [Q, D], and the median of their milliseconds.

    They are asked in turns, one query at a time, so that whatever else the machine does slows all alike.
    """
    for retriever in retrievers:
        retriever.search(queries[:1], RECALL_AT, exact=exact)  # the first search loads the index
    found: list[list[list[dict]]] = [[] for _ in retrievers]
    seconds: list[list[float]] = [[] for _ in retrievers]
    for query in queries:
        for place, retriever in enumerate(retrievers):
            started = perf_counter()
            found[place] += retriever.search(query[np.newaxis], RECALL_AT, exact=exact)
            seconds[place].append(perf_counter() - started)
    return [(rows, 1000 * median(times)) for rows, times in zip(found, seconds, strict=True)]


def recall(found: Sequence[list[dict]], true: Sequence[list[dict]]) -> float:
    """Share of the true nearest images that were found, the mean over the queries; in [0, 1]."""
    pairs = zip(found, true, strict=True)
    return float(np.mean([len(_ids(some) & _ids(best)) / max(1, len(best)) for some, best in pairs]))


def choose(measured: Sequence[Measured], target: float) -> Measured:
    """The fastest setting whose recall reaches the target; if none does, the one with the highest recall."""
    good = [one for one in measured if one.recall_at_10 >= target]
    if good:
        return min(good, key=lambda one: one.p50_ms)
    return max(measured, key=lambda one: (one.recall_at_10, -one.p50_ms))


def recall_queries(retriever: Retriever, encoder: Encoder, num_queries: int) -> np.ndarray:
    """float32 [Q, D]: captions from all over the table as queries; the images' vectors if wordless."""
    num_rows = retriever.table.count_rows()
    step = max(1, num_rows // num_queries)
    chosen = list(range(0, num_rows, step))[:num_queries]
    rows = retriever.table.to_lance().take(chosen, ["caption", "vector"])
    captions = [caption for caption in rows["caption"].to_pylist() if caption]
    return encoder.encode_texts(captions) if captions else np.array(rows["vector"].to_pylist(), np.float32)


def keep(store: Store, row: dict[str, Any]) -> None:
    """Add a measurement to `indexes`, whose newest row of an encoder is the one that counts.

    One that only says again what that row says is not added.
    """
    schema = SCHEMAS["indexes"]
    rows = pa.Table.from_pylist([row | {"measured_at": now()}], schema)
    if _figures(rows) == _figures(_newest(store, row["encoder"])):
        return
    if store.exists("indexes") and key_of(store.open("indexes").schema) != KEY:
        # Written before settings were chosen: made anew, once, with the old rows.
        rows = pa.concat_tables([pa.Table.from_pylist(store.read("indexes").to_pylist(), schema), rows])
        store.database.drop_table("indexes")
    store.merge("indexes", rows, on=KEY)


def _newest(store: Store, encoder: str) -> pa.Table:
    """The row of `indexes` that counts for an encoder; empty where there is none."""
    if not store.exists("indexes"):
        return SCHEMAS["indexes"].empty_table()
    return store.read("indexes", where=f"encoder = '{encoder}'").sort_by([("measured_at", "descending")])[:1]


def _figures(rows: pa.Table) -> list[dict[str, Any]]:
    """What was measured, without the time of it; as the table rounds it."""
    return rows.drop_columns("measured_at").to_pylist()


def _ids(rows: list[dict]) -> set[str]:
    return {row["image_id"] for row in rows}
