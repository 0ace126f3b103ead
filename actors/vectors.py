"""Writes an encoder's table of vectors. Every row gets the aesthetic score that searches can filter on."""

from typing import cast

import numpy as np
import pyarrow as pa

from actors.encoder import Encoder
from actors.scorers import PromptPairs
from cluster.tables import Store, embeddings_schema, embeddings_table

AESTHETIC = "aesthetic"


class VectorTable:
    """`embeddings_<fingerprint>` of one encoder, for writing. The table need not exist yet."""

    def __init__(self, store: Store, encoder: Encoder) -> None:
        self.store = store
        self.name = embeddings_table(encoder.fingerprint)
        self.schema = embeddings_schema(encoder.dim)
        self._scorer = PromptPairs.of(encoder.encode_texts, encoder.temperature)

    def merge(self, rows: pa.Table) -> int:
        """Score and insert rows with `vector` and the columns of `images`; returns the number of new rows."""
        columns = [name for name in self.schema.names if name != AESTHETIC]
        scores = pa.array(self._scorer.score(vector_matrix(rows["vector"])), pa.float32())
        rows = rows.select(columns).append_column(AESTHETIC, scores)
        return self.store.merge(self.name, rows.select(self.schema.names).cast(self.schema), on=["image_id"])


def vector_matrix(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Arrow fixed_size_list<float32>[D] -> float32 [N, D]."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    column = cast(pa.FixedSizeListArray, column)
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)
