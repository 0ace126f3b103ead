"""The indexes of the tables: made from some size on, brought up to date, files joined."""

from typing import Any

from lancedb.index import BTree, HnswSq

from actors.retriever import has_index

# One HNSW graph must fit in memory while it is built.
ROWS_PER_PARTITION = 1_000_000
MOST_FRAGMENTS = 64
# Every update adds a graph of its own, and a search goes through all of them.
MOST_GRAPHS = 4
EXACT, ANN = "exact", "IVF_HNSW_SQ"


def build_ann(table: Any, ann_min_rows: int) -> str:
    """Build the table's ANN index, or bring it up to date, from `ann_min_rows` on; returns its kind."""
    if has_index(table):
        table.optimize()
        if _statistics(table).num_indices > MOST_GRAPHS:
            _build(table)
        return ANN
    if table.count_rows() < ann_min_rows:
        return EXACT
    _build(table)
    return ANN


def num_partitions(num_rows: int) -> int:
    """Into how many HNSW graphs so many rows are divided."""
    return max(1, num_rows // ROWS_PER_PARTITION)


def num_unindexed(table: Any) -> int:
    """Rows that no ANN index holds: a search compares the query with each of them."""
    return _statistics(table).num_unindexed_rows if has_index(table) else table.count_rows()


def index_ids(table: Any, min_rows: int) -> None:
    """Give a table of at least `min_rows` an index on `image_id`, by which previews and deletions look."""
    if table.count_rows() >= min_rows and not has_index(table, "image_id"):
        table.create_index("image_id", config=BTree())


def compact(table: Any) -> None:
    """Join the small files that many merges leave, so that a scan opens few."""
    if len(table.to_lance().get_fragments()) > MOST_FRAGMENTS:
        table.optimize()


def _build(table: Any) -> None:
    config = HnswSq(distance_type="cosine", num_partitions=num_partitions(table.count_rows()))
    table.create_index("vector", config=config)


def _statistics(table: Any) -> Any:
    (name,) = (index.name for index in table.list_indices() if "vector" in index.columns)
    return table.index_stats(name)
