"""Vector searches in batches: what several requests ask of one index at a time is one call of LanceDB."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from cluster.errors import UserError

Row = dict[str, Any]


class Page(NamedTuple):
    """What one search finds, best first, and the version of the table that it looked at."""

    rows: list[Row]
    version: int


class Searcher(Protocol):
    """What searches one index: an `actors.retriever.Retriever`."""

    @property
    def version(self) -> int:
        """The table's version now."""

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
) -> list[Page | UserError]:
    """The page for each (vector float32 [D], what is asked), or why there is none.

    Equal wishes share one call, and a mistake among them stays theirs.
    """
    groups: dict[Asked, list[int]] = {}
    for place, (_, asked) in enumerate(items):
        groups.setdefault(asked, []).append(place)
    results: list[Page | UserError] = [Page([], 0)] * len(items)
    for asked, places in groups.items():
        vectors = np.stack([items[place][0] for place in places])
        try:
            found = _search(searcher, columns, vectors, asked)
        except UserError as error:
            found = [error] * len(places)
        for place, page in zip(places, found, strict=True):
            results[place] = page
    return results


def _search(searcher: Searcher, columns: Sequence[str], vectors: np.ndarray, asked: Asked) -> list[Page]:
    search = partial(
        searcher.search,
        vectors,
        asked.k,
        asked.where,
        columns,
        offset=asked.offset,
        with_vectors=asked.with_vectors,
    )
    version = asked.version
    if version is not None:
        found = search(version=version)
    else:
        before = searcher.version
        found = search()
        version = searcher.version
        if version != before:  # somebody wrote meanwhile: the rows may be of any version in between
            found = search(version=version)
    return [Page(rows, version) for rows in found]
