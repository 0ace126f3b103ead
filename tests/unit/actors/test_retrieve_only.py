"""Retrieval of given images only: all of them, and no others, for each query."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from actors.cascade import Retrieval, Retrieve
from actors.retriever import Retriever
from cluster.tables import embeddings_schema, embeddings_table

ENCODER = "e" * 16
VECTORS = {"a": [1.0, 0.0], "b": [0.8, 0.6], "c": [0.0, 1.0]}


def test_each_query_retrieves_its_own_images_by_similarity(store):
    empty = dict.fromkeys(embeddings_schema(2).names)
    rows = [empty | {"image_id": name, "vector": vector} for name, vector in VECTORS.items()]
    store.merge(embeddings_table(ENCODER), pa.Table.from_pylist(rows, embeddings_schema(2)), on=["image_id"])
    stage = object.__new__(Retrieve)
    record = SimpleNamespace(encoder=ENCODER)
    only = {"x": ["c", "a"], "y": ["b", "missing"]}
    stage.retrieval = Retrieval(None, store, record, "original", 1, where="image_id = 'b'", only=only)
    stage.encoder = SimpleNamespace(encode_texts=lambda texts: np.float32([VECTORS["a"]] * len(texts)))
    stage.retriever = Retriever(store, ENCODER)
    batch = pa.table({"query": ["x", "y", "z"], "rephrased": ["x, fine", "y, fine", ""]})
    found = stage(batch).to_pydict()
    assert found["image_ids"] == [["a", "c"], ["b"], []]
    assert np.allclose(found["retrieval_scores"][0], [1.0, 0.0], atol=1e-6)
