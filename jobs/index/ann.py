"""Builds and updates the indexes of the tables, and merges small files."""

from typing import Any

from lancedb.index import BTree, HnswSq

from actors.retriever import has_index

ROWS_PER_PARTITION = 1_000_000  # a partition's HNSW graph must fit in memory while it is built
MAX_FRAGMENTS = 64
MAX_GRAPHS = 4  # every update adds a graph, and a search goes through all of them
EXACT, ANN = "exact", "IVF_HNSW_SQ"


def build_ann(table: Any, ann_min_rows: int) -> str:
    """Build or update the ANN index of a table with at least `ann_min_rows`; returns the index's kind."""
    if has_index(table):
        table.optimize()
        if _statistics(table).num_indices > MAX_GRAPHS:
            _build(table)
        return ANN
    if table.count_rows() < ann_min_rows:
        return EXACT
    _build(table)
    return ANN


def num_partitions(num_rows: int) -> int:
    """Number of partitions, one HNSW graph each, for a table of `num_rows`."""
    return max(1, num_rows // ROWS_PER_PARTITION)


def num_unindexed(table: Any) -> int:
    """Rows outside the ANN index: a search compares the query with each of them."""
    return _statistics(table).num_unindexed_rows if has_index(table) else table.count_rows()


def index_ids(table: Any, min_rows: int) -> None:
    """Index `image_id` in a table of at least `min_rows`: previews and deletions look rows up by it."""
    if table.count_rows() >= min_rows and not has_index(table, "image_id"):
        table.create_index("image_id", config=BTree())


def compact(table: Any, *, always: bool) -> None:
    """Merge the small files that many inserts leave behind, so that a scan opens few files."""
    if always or len(table.to_lance().get_fragments()) > MAX_FRAGMENTS:
        table.optimize()


def _build(table: Any) -> None:
    config = HnswSq(distance_type="cosine", num_partitions=num_partitions(table.count_rows()))
    table.create_index("vector", config=config)


def _statistics(table: Any) -> Any:
    (name,) = (index.name for index in table.list_indices() if "vector" in index.columns)
    return table.index_stats(name)
