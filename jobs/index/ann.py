"""The ANN index of a table of vectors, and its recall against the exact answers."""

from typing import Any

import numpy as np
import pyarrow as pa
from lancedb.index import HnswSq

from actors.encoder import Encoder
from actors.retriever import Retriever, has_index
from cluster.tables import SCHEMAS, Store, now

RECALL_AT = 10
# One HNSW graph must fit in memory while it is built.
ROWS_PER_PARTITION = 1_000_000
MOST_FRAGMENTS = 64
EXACT, ANN = "exact", "IVF_HNSW_SQ"


def build_ann(table: Any, ann_min_rows: int) -> str:
    """Build the table's ANN index, or bring it up to date, from `ann_min_rows` on; returns its kind."""
    num_rows = table.count_rows()
    if has_index(table):
        table.optimize()
        return ANN
    if num_rows < ann_min_rows:
        return EXACT
    partitions = max(1, num_rows // ROWS_PER_PARTITION)
    config = HnswSq(distance_type="cosine", num_partitions=partitions)
    table.create_index("vector", config=config)
    return ANN


def compact(table: Any) -> None:
    """Join the small files that many merges leave, so that a scan opens few."""
    if len(table.to_lance().get_fragments()) > MOST_FRAGMENTS:
        table.optimize()


def measure(store: Store, encoder: Encoder, kind: str, num_queries: int) -> dict[str, Any]:
    """recall@10 of the encoder's table, kept as a row of `indexes`; 1.0 where search is exact."""
    retriever = Retriever(store, encoder.fingerprint, encoder)
    queries = recall_queries(retriever, encoder, num_queries) if kind == ANN else np.zeros((0, encoder.dim))
    row = {
        "encoder": encoder.fingerprint,
        "kind": kind,
        "num_rows": retriever.table.count_rows(),
        "recall_at_10": recall(retriever, queries, RECALL_AT) if kind == ANN else 1.0,
        "num_queries": len(queries),
        "measured_at": now(),
    }
    rows = pa.Table.from_pylist([row], SCHEMAS["indexes"])
    store.merge("indexes", rows, on=["encoder", "kind", "num_rows"])
    return row


def recall_queries(retriever: Retriever, encoder: Encoder, num_queries: int) -> np.ndarray:
    """float32 [Q, D]: captions from all over the table as queries; the images' vectors if wordless."""
    num_rows = retriever.table.count_rows()
    step = max(1, num_rows // num_queries)
    chosen = list(range(0, num_rows, step))[:num_queries]
    rows = retriever.table.to_lance().take(chosen, ["caption", "vector"])
    captions = [caption for caption in rows["caption"].to_pylist() if caption]
    return encoder.encode_texts(captions) if captions else np.array(rows["vector"].to_pylist(), np.float32)


def recall(retriever: Retriever, queries: np.ndarray, k: int) -> float:
    """Share of the k exact nearest images that the search finds, the mean over queries [Q, D]; in [0, 1]."""
    pairs = zip(retriever.search(queries, k), retriever.search(queries, k, exact=True), strict=True)
    return float(np.mean([len(_ids(found) & _ids(true)) / max(1, len(true)) for found, true in pairs]))


def _ids(rows: list[dict]) -> set[str]:
    return {row["image_id"] for row in rows}
