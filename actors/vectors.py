"""Writing an encoder's table of vectors: every row gets the aesthetic score that searches filter on."""

import lance
import numpy as np
import pyarrow as pa

from actors.encoder import Encoder
from actors.scorers import PromptPairs
from cluster.tables import Store, embeddings_schema, embeddings_table

AESTHETIC = "aesthetic"
SCORE_ROWS = 10_000


class VectorTable:
    """`embeddings_<fingerprint>` of one encoder, for writing."""

    def __init__(self, store: Store, encoder: Encoder) -> None:
        """The table need not exist yet. One from before there was an aesthetic score gets its scores now."""
        self.store = store
        self.name = embeddings_table(encoder.fingerprint)
        self.schema = embeddings_schema(encoder.dim)
        self._scorer = PromptPairs.of(encoder.encode_texts, encoder.temperature)
        if store.exists(self.name) and AESTHETIC not in store.open(self.name).schema.names:
            self._add_scores()

    def merge(self, rows: pa.Table) -> int:
        """Insert rows with `vector` and the columns of `images`, scored anew; returns how many were new."""
        columns = [name for name in self.schema.names if name != AESTHETIC]
        rows = rows.select(columns).append_column(AESTHETIC, self._scores(rows["vector"]))
        return self.store.merge(self.name, rows.select(self.schema.names).cast(self.schema), on=["image_id"])

    def _scores(self, vectors: pa.Array | pa.ChunkedArray) -> pa.Array:
        return pa.array(self._scorer.score(vector_matrix(vectors)), pa.float32())

    def _add_scores(self) -> None:
        """Through Lance, whose new columns leave the rows, the key's marks and the ANN index as they are."""

        @lance.batch_udf(output_schema=pa.schema([self.schema.field(AESTHETIC)]))
        def score(batch: pa.RecordBatch) -> pa.RecordBatch:
            return pa.record_batch([self._scores(batch["vector"])], [AESTHETIC])

        table = self.store.open(self.name).to_lance()
        table.add_columns(score, read_columns=["vector"], batch_size=SCORE_ROWS)


def vector_matrix(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Arrow fixed_size_list<float32>[D] -> float32 [N, D]."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)
