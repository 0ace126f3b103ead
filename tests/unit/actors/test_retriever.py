"""The retriever's pages, versions and settings, against results worked out by hand."""

import datetime

import numpy as np
import pyarrow as pa
import pytest
from lancedb.index import HnswSq

from actors import retriever as retriever_module
from actors.encoder import vector_array
from actors.retriever import Effort, Gone, Retriever
from actors.vectors import vector_matrix
from cluster.errors import UserError
from cluster.tables import SCHEMAS, Store, embeddings_schema, embeddings_table, now

FINGERPRINT = "a" * 16
DIM = 16


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def add(store: Store, vectors: np.ndarray, start: int = 0) -> list[str]:
    """Store rows for the vectors, numbered from `start`; returns their ids."""
    ids = [f"{start + number:064x}" for number in range(len(vectors))]
    rows = [{"image_id": image_id, "caption": f"photo {image_id}", "aesthetic": 0.5} for image_id in ids]
    schema = embeddings_schema(DIM)
    table = pa.Table.from_pylist(rows, schema).set_column(1, schema.field(1), vector_array(vectors, DIM))
    store.merge(embeddings_table(FINGERPRINT), table, on=["image_id"])
    return ids


def ids_of(rows: list[dict]) -> list[str]:
    return [row["image_id"] for row in rows]


@pytest.mark.parametrize("num_queries", [1, 5])
def test_pages_join_to_one_order(store, num_queries):
    add(store, unit(60))
    retriever, queries = Retriever(store, FINGERPRINT), unit(num_queries, seed=1)
    whole = retriever.search(queries, 60)
    pages = [retriever.search(queries, 7, offset=offset) for offset in range(0, 70, 7)]
    for index, rows in enumerate(whole):
        assert ids_of(rows) == [image_id for page in pages for image_id in ids_of(page[index])]
    assert pages[-1] == [[]] * num_queries


def test_equal_scores_are_ordered_by_id_across_pages(store):
    vectors = unit(40)
    vectors[5:25] = vectors[5]  # 20 images with the same vector
    ids = add(store, vectors[::-1])[::-1]
    retriever = Retriever(store, FINGERPRINT)
    pages = [retriever.search(vectors[5:6], 3, offset=offset)[0] for offset in range(0, 21, 3)]
    found = [image_id for page in pages for image_id in ids_of(page)]
    assert found[:20] == sorted(ids[5:25])


def test_query_with_equal_scores_everywhere_does_not_read_the_whole_table(store, monkeypatch):
    add(store, unit(600))
    monkeypatch.setattr(retriever_module, "MAX_EQUAL", 50)
    retriever, limits = Retriever(store, FINGERPRINT), []
    ask = retriever._ask
    monkeypatch.setattr(retriever, "_ask", lambda *given: limits.append(given[-1]) or ask(*given))
    assert len(retriever.search(np.zeros((1, DIM), np.float32), 5)[0]) <= 5
    assert max(limits) < 150


def test_vectors_are_returned_on_request(store):
    vectors = unit(20)
    ids = add(store, vectors)
    retriever = Retriever(store, FINGERPRINT)
    for rows in retriever.search(unit(3, seed=1), 4, columns=["caption"], with_vectors=True):
        for row in rows:
            assert row["vector"].dtype == np.float32
            np.testing.assert_array_equal(row["vector"], vectors[ids.index(row["image_id"])])
    (rows,) = retriever.search(unit(1), 4, columns=["caption"])
    assert [set(row) for row in rows] == [{"image_id", "caption", "score"}] * 4


def test_version_searches_the_earlier_table(store):
    ids = add(store, unit(10))
    retriever = Retriever(store, FINGERPRINT)
    version = retriever.version
    newer = add(store, unit(10, seed=3), start=10)
    retriever = Retriever(store, FINGERPRINT)
    assert retriever.version > version
    (earlier,), (current,) = (retriever.search(unit(1), 20, version=at) for at in (version, None))
    assert (sorted(ids_of(earlier)), sorted(ids_of(current))) == (ids, sorted(ids + newer))


def test_unknown_version_raises_gone(store):
    add(store, unit(10))
    retriever = Retriever(store, FINGERPRINT)
    with pytest.raises(Gone, match=r"no version 99 .*search again"):
        retriever.search(unit(1), 3, version=99)
    assert issubclass(Gone, UserError)


def test_version_cleaned_up_while_open_raises_gone(store):
    add(store, unit(10))
    add(store, unit(10, seed=3), start=10)
    retriever = Retriever(store, FINGERPRINT)
    version = retriever.version
    assert len(retriever.search(unit(1), 3, version=version)[0]) == 3
    table = store.open(embeddings_table(FINGERPRINT))
    table.optimize(cleanup_older_than=datetime.timedelta(0), delete_unverified=True)
    with pytest.raises(Gone, match="cleaned up"):
        retriever.search(unit(1), 3, version=version)


def test_new_rows_are_found_before_they_are_indexed(store):
    add(store, unit(1000))
    store.open(embeddings_table(FINGERPRINT)).create_index("vector", config=HnswSq(distance_type="cosine"))
    new = unit(30, seed=7)
    ids = add(store, new, start=1000)
    retriever = Retriever(store, FINGERPRINT)
    assert retriever.table.index_stats("vector_idx").num_unindexed_rows == 30
    assert [ids_of(rows) for rows in retriever.search(new, 1)] == [[image_id] for image_id in ids]


@pytest.mark.parametrize("k", [1, 10, 300])
def test_least_effort_returns_k_rows_for_any_k(store, k):
    add(store, unit(1000))
    store.open(embeddings_table(FINGERPRINT)).create_index(
        "vector", config=HnswSq(distance_type="cosine", num_partitions=4)
    )
    retriever = Retriever(store, FINGERPRINT, effort=Effort(ef=1, refine_factor=8, nprobes=1))
    assert [len(rows) for rows in retriever.search(unit(3, seed=1), k)] == [k] * 3


def test_effort_is_the_last_measured_one(store):
    add(store, unit(10))
    assert Retriever(store, FINGERPRINT).effort == Effort()
    measured = {"encoder": FINGERPRINT, "kind": "IVF_HNSW_SQ", "num_rows": 10}
    moments = [now() + datetime.timedelta(seconds=seconds) for seconds in (0, 2, 1)]
    for ef, moment in zip((50, 100, 400), moments, strict=True):
        row = measured | {"ef": ef, "refine_factor": 4, "nprobes": 3, "measured_at": moment}
        rows = pa.Table.from_pylist([row], SCHEMAS["indexes"])
        store.merge("indexes", rows, on=["encoder", "measured_at"])
    assert Retriever(store, FINGERPRINT).effort == Effort(ef=100, refine_factor=4, nprobes=3)


def test_aesthetic_scores_can_be_filtered_on(store):
    add(store, unit(10))
    retriever = Retriever(store, FINGERPRINT)
    counts = [len(retriever.search(unit(1), 10, f"aesthetic >= {least}")[0]) for least in (0.4, 0.6)]
    assert counts == [10, 0]


def test_no_rows_give_an_empty_matrix():
    none = pa.chunked_array([], pa.list_(pa.float32(), 3))
    assert vector_matrix(none).shape == (0, 3)
