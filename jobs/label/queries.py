"""Where queries come from: a file, or the captions of the images."""

from collections.abc import Sequence

import numpy as np

from cluster.errors import UserError, shown
from cluster.table_files import query_texts
from cluster.tables import Store, embeddings_table

NUM_DRAWN = 64


def read_queries(path: str, num_queries: int | None = None) -> list[str]:
    """The distinct queries of a file, in order; the first `num_queries` of them, None for all.

    Raises:
        UserError: the file cannot be read, or there is no query in it.
    """
    queries = distinct(query_texts(path))
    if not queries:
        raise UserError(
            f"The file of queries {shown(path)} holds no query: give one with a query on each line or row."
        )
    return queries[:num_queries]


def draw_queries(
    store: Store, fingerprint: str, where: str | None, num_queries: int | None, seed: int
) -> list[str]:
    """`num_queries` distinct captions, None for `NUM_DRAWN`, drawn by `seed`; fewer when there are fewer.

    where: SQL filter on the encoder's embeddings table.

    Raises:
        UserError: no image has a caption.
    """
    table = store.read(embeddings_table(fingerprint), ["caption"], where)
    captions = sorted(distinct([text or "" for text in table["caption"].to_pylist()]))
    if not captions:
        raise UserError("No image has a caption to draw queries from: give a file with --queries.")
    order = np.random.default_rng(seed).permutation(len(captions))
    return [captions[position] for position in order[: num_queries or NUM_DRAWN]]


def distinct(texts: Sequence[str]) -> list[str]:
    """The texts in order, each on one line, without empty ones or duplicates."""
    lines = (" ".join(text.split()) for text in texts)
    return [line for line in dict.fromkeys(lines) if line]
