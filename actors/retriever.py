"""Nearest images of query vectors in one encoder's table: exact, or through its ANN index if it has one."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa

from actors.encoder import Encoder
from actors.vectors import vector_matrix
from cluster.compat.errors import is_missing_file
from cluster.errors import UserError
from cluster.schemas import EMBEDDINGS
from cluster.sql import in_list
from cluster.tables import Store, embeddings_table

# Queries in one call of LanceDB, which scans the table once for all of them.
CHUNK = 256
# The beam is at least this many times the results asked for: LanceDB's default of 1.5 loses one true
# neighbour in ten on 100,000 vectors.
EF_PER_RESULT = 4
NUM_VERSIONS_KEPT = 8
# How far equal scores are followed: copies of a picture, not the table for a query that is like nothing.
MOST_EQUAL = 1000


class Gone(UserError):
    """A version of the table that is no longer there."""


@dataclass(frozen=True)
class Effort:
    """How hard the ANN index is searched; an exact search does not look at it.

    ef: candidates that the beam in an HNSW graph keeps. refine_factor: how many times the results asked for
    are compared by their full vectors. nprobes: partitions looked into, at least.
    """

    ef: int = 200
    refine_factor: int = 2
    nprobes: int = 20


class Retriever:
    """Searches `embeddings_<fingerprint>`, whose vectors only that encoder's queries can be compared with."""

    def __init__(
        self, store: Store, fingerprint: str, encoder: Encoder | None = None, effort: Effort | None = None
    ) -> None:
        """Open the table; with `encoder`, check that its queries belong there.

        `effort`: None takes what `kallos index` chose last. Raises UserError, with both fingerprints and the
        command that mends it, when they differ or the table is missing.
        """
        name = embeddings_table(fingerprint)
        if encoder is not None and encoder.fingerprint != fingerprint:
            raise UserError(
                f"the encoder in use is {encoder.fingerprint} and the index was made by {fingerprint}: their "
                f"vectors cannot be compared; run `kallos index --encoder {encoder.fingerprint} "
                f"--store {store.uri}`."
            )
        if not store.exists(name):
            made = ", ".join(_encoders(store)) or "none"
            raise UserError(
                f"{store} has no embeddings of encoder {fingerprint}, only of {made}; run "
                f"`kallos index --encoder {fingerprint} --store {store.uri}`."
            )
        self.fingerprint = fingerprint
        self.table = store.open(name)
        self.approximate = has_index(self.table)
        self.effort = effort or measured_effort(store, fingerprint)
        self._store = store
        self._at = lru_cache(NUM_VERSIONS_KEPT)(self._checked_out)

    @property
    def version(self) -> int:
        """The table's version that searches see now."""
        return self.table.version

    @property
    def filterable(self) -> frozenset[str]:
        """The columns that `where` may name; tables from before there was an `aesthetic` lack it."""
        return frozenset(self.table.schema.names)

    def search(
        self,
        vectors: np.ndarray,
        k: int,
        where: str | None = None,
        columns: Sequence[str] = (),
        *,
        exact: bool = False,
        offset: int = 0,
        version: int | None = None,
        with_vectors: bool = False,
    ) -> list[list[dict[str, Any]]]:
        """float32 [Q, D] -> for each query its `k` nearest images after the first `offset`, best first.

        A row has `image_id`, `score` (cosine, in [-1, 1]), the `columns` and, `with_vectors`, `vector`
        (float32 [D]); equal scores stand in the order of image_id. `where` is SQL on the table's columns,
        applied before the search; `exact` passes over the ANN index. `version` searches the table as it was
        then, without the images that were deleted since: such a page may be shorter than `k`.

        Raises:
            Gone: there is no such version, or it was cleaned up.
            UserError: a bad filter.
        """
        table = self.table if version is None else self._at(version)
        ask = partial(self._ask, table, where, [*columns, *["vector"] * with_vectors], exact)
        results: list[list[dict[str, Any]]] = []
        for start in range(0, len(vectors), CHUNK):
            chunk = np.asarray(vectors[start : start + CHUNK], np.float32)
            results += [rows[offset : offset + k] for rows in _ranked(ask, chunk, offset + k)]
        if version is None or version == self.version:
            return results
        return self._without_deleted(results)

    def _ask(
        self,
        table: Any,
        where: str | None,
        columns: Sequence[str],
        exact: bool,
        vectors: np.ndarray,
        limit: int,
    ) -> pa.Table:
        query = table.search(vectors).distance_type("cosine").limit(limit)
        query = query.select(list(dict.fromkeys(("image_id", *columns, "_distance"))))
        if where:
            query = query.where(where)
        if exact:
            query = query.bypass_vector_index()
        else:
            effort = self.effort
            # Further partitions only where a narrow filter leaves too little in the first ones.
            query = query.minimum_nprobes(effort.nprobes).maximum_nprobes(0)
            query = query.refine_factor(effort.refine_factor)
            query = query.ef(max(effort.ef, max(EF_PER_RESULT, effort.refine_factor) * limit))
        try:
            return query.to_arrow()
        except ValueError as error:
            raise UserError(f"searching {self.table.name} with filter '{where}' failed: {error}") from error
        except RuntimeError as error:
            if not is_missing_file(error):
                raise
            raise Gone(
                f"The version of {self.table.name} that was open is cleaned up: search anew."
            ) from error

    def _checked_out(self, version: int) -> Any:
        table = self._store.open(self.table.name)
        try:
            table.checkout(version)
        except ValueError as error:
            raise Gone(f"{self.table.name} has no version {version} (any more): search anew.") from error
        return table

    def _without_deleted(self, results: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        found = {row["image_id"] for rows in results for row in rows}
        if not found:
            return results
        query = self.table.search().where(in_list("image_id", found)).select(["image_id"]).limit(len(found))
        there = set(query.to_arrow()["image_id"].to_pylist())
        return [[row for row in rows if row["image_id"] in there] for rows in results]


def has_index(table: Any, column: str = "vector") -> bool:
    """Whether the LanceDB table has an index on the column."""
    return any(column in index.columns for index in table.list_indices())


def measured_effort(store: Store, fingerprint: str) -> Effort:
    """What `kallos index` chose last for the encoder, the defaults where it has not measured."""
    if not store.exists("indexes"):
        return Effort()
    rows = store.read("indexes", where=f"encoder = '{fingerprint}'").sort_by("measured_at").to_pylist()
    newest = rows[-1] if rows else {}
    return Effort(**{field.name: newest.get(field.name) or field.default for field in fields(Effort)})


def _ranked(ask: partial, vectors: np.ndarray, count: int) -> list[list[dict[str, Any]]]:
    """For each query its `count` nearest rows and perhaps more, in an order that depends on no `count`.

    LanceDB cuts among equal scores as it likes, so it is asked for more until none are cut apart. (An ANN
    index may still find other images for another `count`.)
    """
    limit = count + 1
    while True:
        results = _by_query(ask(vectors, limit), len(vectors))
        full = (rows for rows in results if len(rows) >= limit)
        whole = all(rows[count - 1]["score"] > rows[limit - 1]["score"] for rows in full)
        if whole or limit > count + MOST_EQUAL:
            return results
        limit *= 2


def _by_query(found: pa.Table, num_queries: int) -> list[list[dict[str, Any]]]:
    scores = np.clip(1.0 - found["_distance"].to_numpy().astype(np.float64), -1.0, 1.0)
    found = found.drop_columns("_distance").append_column("score", pa.array(scores))
    if "query_index" not in found.column_names:
        found = found.append_column("query_index", pa.array(np.zeros(len(scores), np.int32)))
    found = found.sort_by([("query_index", "ascending"), ("score", "descending"), ("image_id", "ascending")])
    vectors = None
    if "vector" in found.column_names:
        vectors = vector_matrix(found["vector"])
        found = found.drop_columns("vector")
    results: list[list[dict[str, Any]]] = [[] for _ in range(num_queries)]
    for place, row in enumerate(found.to_pylist()):
        if vectors is not None:
            row["vector"] = vectors[place]
        results[row.pop("query_index")].append(row)
    return results


def _encoders(store: Store) -> list[str]:
    return [name.removeprefix(EMBEDDINGS) for name in store.names() if name.startswith(EMBEDDINGS)]
