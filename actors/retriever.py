"""Nearest images of query vectors in one encoder's table: exact, or through its ANN index if it has one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from actors.encoder import Encoder
from cluster.errors import UserError
from cluster.tables import Store, embeddings_table

# Queries in one call of LanceDB, which scans the table once for all of them.
CHUNK = 256
# The HNSW beam: candidates kept while searching, at least this many and this many times k. LanceDB's default
# of 1.5 k loses one true neighbour in ten on 100,000 vectors.
EF_LEAST, EF_PER_K = 200, 4
REFINE_FACTOR = 2


class Retriever:
    """Searches `embeddings_<fingerprint>`, whose vectors only that encoder's queries can be compared with."""

    def __init__(self, store: Store, fingerprint: str, encoder: Encoder | None = None) -> None:
        """Open the table; with `encoder`, check that its queries belong there.

        Raises UserError, with both fingerprints and the command that mends it, when they differ or the
        table is missing.
        """
        name = embeddings_table(fingerprint)
        if encoder is not None and encoder.fingerprint != fingerprint:
            raise UserError(
                f"the encoder in use is {encoder.fingerprint} and the index was made by {fingerprint}: their "
                f"vectors cannot be compared; run `kallos index --encoder {encoder.fingerprint} "
                f"--store {store.uri}`."
            )
        if not store.exists(name):
            made = ", ".join(other.removeprefix("embeddings_") for other in _embeddings(store)) or "none"
            raise UserError(
                f"{store} has no embeddings of encoder {fingerprint}, only of {made}; run "
                f"`kallos index --encoder {fingerprint} --store {store.uri}`."
            )
        self.fingerprint = fingerprint
        self.table = store.open(name)
        self.approximate = has_index(self.table)

    def search(
        self,
        vectors: np.ndarray,
        k: int,
        where: str = "",
        columns: Sequence[str] = (),
        *,
        exact: bool = False,
    ) -> list[list[dict[str, Any]]]:
        """float32 [Q, D] -> for each query its k nearest images, best first.

        A row has `image_id`, `score` (cosine, in [-1, 1]) and the `columns`; `where` is SQL on the table's
        columns, applied before the search; `exact` passes over the ANN index. Raises UserError for a bad
        filter.
        """
        results: list[list[dict[str, Any]]] = []
        for start in range(0, len(vectors), CHUNK):
            results += self._search(vectors[start : start + CHUNK], k, where, columns, exact)
        return results

    def _search(
        self, vectors: np.ndarray, k: int, where: str, columns: Sequence[str], exact: bool
    ) -> list[list[dict[str, Any]]]:
        query = self.table.search(np.asarray(vectors, np.float32)).distance_type("cosine").limit(k)
        query = query.select(list(dict.fromkeys(("image_id", *columns, "_distance"))))
        if where:
            query = query.where(where)
        if exact:
            query = query.bypass_vector_index()
        elif self.approximate:
            query = query.ef(max(EF_LEAST, EF_PER_K * k)).refine_factor(REFINE_FACTOR)
        try:
            return _by_query(query.to_arrow(), len(vectors))
        except ValueError as error:
            raise UserError(f"searching {self.table.name} with filter '{where}' failed: {error}") from error


def has_index(table: Any) -> bool:
    """Whether the LanceDB table has an ANN index on its vectors."""
    return any("vector" in index.columns for index in table.list_indices())


def _by_query(found: pa.Table, num_queries: int) -> list[list[dict[str, Any]]]:
    results: list[list[dict[str, Any]]] = [[] for _ in range(num_queries)]
    for row in found.to_pylist():
        distance = row.pop("_distance")
        query = row.pop("query_index", 0)
        results[query].append({**row, "score": float(np.clip(1.0 - distance, -1.0, 1.0))})
    return [sorted(rows, key=lambda row: -row["score"]) for rows in results]


def _embeddings(store: Store) -> list[str]:
    return [name for name in store.names() if name.startswith("embeddings_")]
