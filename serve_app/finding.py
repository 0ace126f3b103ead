"""Vector searches in batches: what several requests ask of one index at a time is one call of LanceDB."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cluster.errors import UserError

Row = dict[str, Any]


class Searcher(Protocol):
    """What searches one index: an `actors.retriever.Retriever`."""

    def search(
        self,
        vectors: np.ndarray,
        k: int,
        where: str = "",
        columns: Sequence[str] = (),
        *,
        offset: int = 0,
        version: int | None = None,
        with_vectors: bool = False,
    ) -> list[list[Row]]:
        """float32 [Q, D] -> for each query results `offset` to `offset + k`, best first."""


@dataclass(frozen=True)
class Asked:
    """What one search wants of an index; `version` None is the table as it is now."""

    k: int
    where: str = ""
    offset: int = 0
    version: int | None = None
    with_vectors: bool = False


def find(
    searcher: Searcher, columns: Sequence[str], items: Sequence[tuple[np.ndarray, Asked]]
) -> list[list[Row] | UserError]:
    """The rows for each (vector float32 [D], what is asked), or why there are none.

    Equal wishes share one call, and a mistake among them stays theirs.
    """
    groups: dict[Asked, list[int]] = {}
    for place, (_, asked) in enumerate(items):
        groups.setdefault(asked, []).append(place)
    results: list[list[Row] | UserError] = [[] for _ in items]
    for asked, places in groups.items():
        vectors = np.stack([items[place][0] for place in places])
        try:
            found = _search(searcher, columns, vectors, asked)
        except UserError as error:
            found = [error] * len(places)
        for place, rows in zip(places, found, strict=True):
            results[place] = rows
    return results


def _search(searcher: Searcher, columns: Sequence[str], vectors: np.ndarray, asked: Asked) -> list[list[Row]]:
    return searcher.search(
        vectors,
        asked.k,
        asked.where,
        columns,
        offset=asked.offset,
        version=asked.version,
        with_vectors=asked.with_vectors,
    )
