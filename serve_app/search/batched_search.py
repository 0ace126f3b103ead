"""Batched vector searches: concurrent searches of one index with equal options share one LanceDB call."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from actors.retriever import Retriever
from cluster.errors import UserError

ResultRow = dict[str, Any]


class ResultPage(NamedTuple):
    """The results of one search, best first, and the version of the table that was searched."""

    rows: list[ResultRow]
    version: int


@dataclass(frozen=True)
class SearchOptions:
    """Arguments of `Retriever.search` for one query; `version` None is the table as it is now."""

    k: int
    where: str = ""
    offset: int = 0
    version: int | None = None
    with_vectors: bool = False


def search_batch(
    retriever: Retriever, columns: Sequence[str], items: Sequence[tuple[np.ndarray, SearchOptions]]
) -> list[ResultPage | UserError]:
    """The result page of each (query vector float32 [D], options), or the error of its options."""
    groups: dict[SearchOptions, list[int]] = {}
    for index, (_, options) in enumerate(items):
        groups.setdefault(options, []).append(index)
    results: list[ResultPage | UserError] = [ResultPage([], 0)] * len(items)
    for options, indices in groups.items():
        vectors = np.stack([items[index][0] for index in indices])
        try:
            pages = _search(retriever, columns, vectors, options)
        except UserError as error:
            pages = [error] * len(indices)
        for index, page in zip(indices, pages, strict=True):
            results[index] = page
    return results


def _search(
    retriever: Retriever, columns: Sequence[str], vectors: np.ndarray, options: SearchOptions
) -> list[ResultPage]:
    search = partial(
        retriever.search,
        vectors,
        options.k,
        options.where,
        columns,
        offset=options.offset,
        with_vectors=options.with_vectors,
    )
    version = options.version
    if version is not None:
        results = search(version=version)
    else:
        before = retriever.version
        results = search()
        version = retriever.version
        if version != before:  # a write happened meanwhile: the rows may be of any version in between
            results = search(version=version)
    return [ResultPage(rows, version) for rows in results]
