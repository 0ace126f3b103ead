"""The images nearest to query vectors in one encoder's table, exact or through its ANN index."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa

from actors.vectors import vector_matrix
from cluster.compat.errors import is_missing_file
from cluster.errors import UserError
from cluster.schemas import EMBEDDINGS
from cluster.sql import in_list
from cluster.tables import Store, embeddings_table

# Queries in one call of LanceDB, which then scans the table once for all of them.
CHUNK = 256
# The beam is at least this many times the number of results: LanceDB's default of 1.5 loses one true
# neighbour in ten on 100,000 vectors.
EF_PER_RESULT = 4
NUM_VERSIONS_KEPT = 8
# Limit on the equal scores that are read: enough for copies of a picture, without reading the whole table
# for a query that scores everything equally.
MAX_EQUAL = 1000


class Gone(UserError):
    """The version of the table no longer exists."""


@dataclass(frozen=True)
class Effort:
    """The search effort of an ANN index; an exact search ignores it.

    ef: candidates that the beam in an HNSW graph keeps. refine_factor: candidates compared by their full
    vectors, as a multiple of the number of results. nprobes: least number of partitions searched.
    """

    ef: int = 200
    refine_factor: int = 2
    nprobes: int = 20


class Retriever:
    """Searches `embeddings_<fingerprint>`, for query vectors of that encoder only."""

    def __init__(self, store: Store, fingerprint: str, effort: Effort | None = None) -> None:
        """Open the table. `effort`: None takes the one that `kallos index` chose last.

        Raises UserError, with the command to run, when the table is missing.
        """
        name = embeddings_table(fingerprint)
        if not store.exists(name):
            others = ", ".join(_encoders(store)) or "none"
            raise UserError(
                f"{store} has no embeddings of encoder {fingerprint}, only of {others}: run "
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
        """The version of the table that searches see."""
        return self.table.version

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
        (float32 [D]). Equal scores are ordered by image_id. `where` is SQL on the table's columns, applied
        before the search; `exact` bypasses the ANN index. `version` searches an earlier version of the table:
        rows of images deleted since then have `deleted`, True. They keep their rank, and must not be shown.

        Raises:
            Gone: the version does not exist, or was cleaned up.
            UserError: the filter is invalid.
        """
        table = self.table if version is None else self._at(version)
        ask = partial(self._ask, table, where, [*columns, *["vector"] * with_vectors], exact)
        results: list[list[dict[str, Any]]] = []
        for start in range(0, len(vectors), CHUNK):
            chunk = np.asarray(vectors[start : start + CHUNK], np.float32)
            results += [rows[offset : offset + k] for rows in _ranked(ask, chunk, offset + k)]
        if version is None or version == self.version:
            return results
        return self._mark_deleted(results)

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
            # More partitions are searched only where a narrow filter leaves too few rows in the first ones.
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
            raise Gone(f"The open version of {self.table.name} was cleaned up: search again.") from error

    def _checked_out(self, version: int) -> Any:
        table = self._store.open(self.table.name)
        try:
            table.checkout(version)
        except ValueError as error:
            raise Gone(f"{self.table.name} has no version {version} any more: search again.") from error
        return table

    def _mark_deleted(self, results: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        found = {row["image_id"] for rows in results for row in rows}
        if not found:
            return results
        query = self.table.search().where(in_list("image_id", found)).select(["image_id"]).limit(len(found))
        present = set(query.to_arrow()["image_id"].to_pylist())
        return [
            [row if row["image_id"] in present else {**row, "deleted": True} for row in rows]
            for rows in results
        ]


def has_index(table: Any, column: str = "vector") -> bool:
    """Whether the LanceDB table has an index on the column."""
    return any(column in index.columns for index in table.list_indices())


def last_measurement(store: Store, fingerprint: str) -> dict[str, Any]:
    """The newest row of `indexes` for the encoder, {} if `kallos index` has measured none."""
    if not store.exists("indexes"):
        return {}
    rows = store.read("indexes", where=f"encoder = '{fingerprint}'").sort_by("measured_at").to_pylist()
    return rows[-1] if rows else {}


def measured_effort(store: Store, fingerprint: str) -> Effort:
    """The search effort that `kallos index` last chose for the encoder, or the defaults."""
    newest = last_measurement(store, fingerprint)
    chosen = {field.name: newest.get(field.name) for field in fields(Effort)}
    return replace(Effort(), **{name: value for name, value in chosen.items() if value})


def _ranked(ask: partial, vectors: np.ndarray, count: int) -> list[list[dict[str, Any]]]:
    """For each query at least its `count` nearest rows, in an order that does not depend on `count`.

    LanceDB cuts off among equal scores arbitrarily, so the limit grows until no group of equal scores is cut.
    (An ANN index may still find other images for another `count`.)
    """
    limit = count + 1
    while True:
        results = _by_query(ask(vectors, limit), len(vectors))
        full = (rows for rows in results if len(rows) >= limit)
        uncut = all(rows[count - 1]["score"] > rows[limit - 1]["score"] for rows in full)
        if uncut or limit > count + MAX_EQUAL:
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
    for index, row in enumerate(found.to_pylist()):
        if vectors is not None:
            row["vector"] = vectors[index]
        results[row.pop("query_index")].append(row)
    return results


def _encoders(store: Store) -> list[str]:
    return [name.removeprefix(EMBEDDINGS) for name in store.names() if name.startswith(EMBEDDINGS)]
