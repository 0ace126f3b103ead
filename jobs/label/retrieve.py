"""Retrieve: the images that the reference encoder finds for the rephrased query.

Columns: `rephrased`, `rephrase_error` -> adds `error`, `image_ids` (list<string>, best first),
`retrieval_scores` (list<float>, cosine in [-1, 1]) and, when asked for, `vectors` (list<list<float>>,
L2-normalised).
"""

import numpy as np
import pyarrow as pa

from actors.encoder import Encoder
from actors.retriever import Retriever
from cluster.profile import EncoderModel
from cluster.tables import Store


class Retrieve:
    """Ray Data actor, `batch_format="pyarrow"`. Rows that carry an error pass with empty lists."""

    def __init__(
        self,
        *,
        store: Store,
        encoder: EncoderModel,
        fingerprint: str,
        top_k: int,
        where: str | None,
        with_vectors: bool,
    ):
        self.encoder = Encoder.load(
            encoder.model, precision=encoder.precision, num_threads=encoder.num_threads
        )
        self.retriever = Retriever(store, fingerprint, self.encoder)
        self.top_k = top_k
        self.where = where
        self.columns = ("vector",) if with_vectors else ()

    def __call__(self, batch: pa.Table) -> pa.Table:
        errors = batch["rephrase_error"].to_pylist()
        asked = [row for row, error in enumerate(errors) if not error]
        texts = batch["rephrased"].to_pylist()
        found: list[list[dict]] = [[] for _ in errors]
        if asked:
            vectors = self.encoder.encode_texts([texts[row] for row in asked])
            hits = self.retriever.search(vectors, self.top_k, where=self.where, columns=self.columns)
            for row, rows_found in zip(asked, hits, strict=True):
                found[row] = rows_found
        for row in asked:
            if len(found[row]) < 2:
                errors[row] = f"only {len(found[row])} images were retrieved: two are needed to prefer one"
        return append(batch, found, errors, with_vectors=bool(self.columns))


def append(batch: pa.Table, found: list[list[dict]], errors: list[str], *, with_vectors: bool) -> pa.Table:
    """The batch with the columns of what was found for each row."""
    ids = [[hit["image_id"] for hit in hits] for hits in found]
    scores = [[float(hit["score"]) for hit in hits] for hits in found]
    batch = batch.drop_columns(["rephrase_error"])
    batch = batch.append_column("error", pa.array(errors, pa.string()))
    batch = batch.append_column("image_ids", pa.array(ids, pa.list_(pa.string())))
    batch = batch.append_column("retrieval_scores", pa.array(scores, pa.list_(pa.float64())))
    if with_vectors:
        vectors = [[np.asarray(hit["vector"], dtype=np.float32) for hit in hits] for hits in found]
        batch = batch.append_column("vectors", pa.array(vectors, pa.list_(pa.list_(pa.float32()))))
    return batch
