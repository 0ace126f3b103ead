"""`kallos align` fits the nulls to its own corpus, once."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from cluster.profile import load_profile
from cluster.schemas import embeddings_schema
from cluster.tables import SCHEMAS, Store, embeddings_table, now
from jobs.align.batches import Corpus
from jobs.align.nulls import captions_of, fitted_nulls

SETTINGS = load_profile("mini").align
IDS = [f"{number:064x}" for number in range(4)]  # pretty boat, ugly boat, pretty cat, ugly cat
VECTORS = np.array([[1, 0, 0.5], [1, 0, -0.5], [0, 1, 0.5], [0, 1, -0.5]], np.float32)
WORDS = {"boat": [1, 0, 0], "cat": [0, 1, 0], "lovely": [0, 0, 0.6], "shimmering": [0, 0, 0.9]}


class Parent:
    """The sum of the words that it knows; the third axis is beauty."""

    fingerprint, dim, temperature = "f" * 16, 3, 0.2

    def __init__(self):
        self.num_texts = 0

    def encode_texts(self, texts):
        self.num_texts += len(texts)
        words = ([word.strip(",") for word in text.split()] for text in texts)
        rows = np.array([sum(np.array(WORDS.get(word, [0, 0, 0])) for word in own) for own in words])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def store(tmp_path):
    made = Store(str(tmp_path / "store"))
    rows = [
        {"image_id": image_id, "vector": vector / np.linalg.norm(vector), "caption": "", "tags": []}
        for image_id, vector in zip(IDS, VECTORS, strict=True)
    ]
    schema = embeddings_schema(3)
    full = [{name: row.get(name) for name in schema.names} for row in rows]
    made.merge(embeddings_table(Parent.fingerprint), pa.Table.from_pylist(full, schema), on=["image_id"])
    return made


def corpus(**weights):
    """The pretty image of each query is preferred to the ugly one."""
    lists = {"winner": [[0], [2]], "loser": [[1], [3]]}
    queries = {
        "query": pa.array(["boat", "cat"]),
        "p_winner": pa.array([[1.0], [1.0]], pa.list_(pa.float32())),
        "weight": pa.array([[weights.get("boat", 1.0)], [1.0]], pa.list_(pa.float32())),
        **{side: pa.array(rows, pa.list_(pa.int32())) for side, rows in lists.items()},
    }
    captions = pa.table({"image": pa.array([0, 2, 3], pa.int32()), "caption": ["boat", "cat", "cat"]})
    return Corpus(pa.table(queries), captions, captions.slice(0, 0), pa.array(IDS))


def fit(store, parent, folder, given):
    return fitted_nulls(load_profile("mini"), SETTINGS, store, given, parent, SimpleNamespace(), folder)


def test_nulls_are_fitted_once_for_the_same_preferences(store, tmp_path):
    parent = Parent()
    found = fit(store, parent, tmp_path, corpus())
    assert found["axis"] == pytest.approx([0, 0, 1], abs=1e-3) and found["strength"] > 0
    assert found["suffix"] == ", lovely" * found["suffix"].count("lovely") != ""
    num_texts = parent.num_texts
    assert fit(store, parent, tmp_path, corpus()) == found and parent.num_texts == num_texts
    fit(store, parent, tmp_path, corpus(boat=2.0))
    assert parent.num_texts > num_texts  # other weights are other evidence


def test_suffix_may_use_the_words_of_the_language_model(store, tmp_path):
    row = dict.fromkeys(SCHEMAS["rankings"].names) | {"query": "boat", "rephrased": "boat, shimmering"}
    rankings = pa.Table.from_pylist([row | {"run_id": "r", "created_at": now()}], SCHEMAS["rankings"])
    store.merge("rankings", rankings, on=["run_id", "query"])
    assert fit(store, Parent(), tmp_path, corpus())["suffix"].startswith(", shimmering")


def test_pairs_of_deleted_images_are_left_out(store, tmp_path, capsys):
    store.open(embeddings_table(Parent.fingerprint)).delete(f"image_id = '{IDS[3]}'")
    assert fit(store, Parent(), tmp_path, corpus())["axis"] == pytest.approx([0, 0, 1], abs=1e-3)
    store.open(embeddings_table(Parent.fingerprint)).delete(f"image_id = '{IDS[1]}'")
    assert fit(store, Parent(), tmp_path / "other", corpus()) is None
    assert "no suffix and no axis" in capsys.readouterr().err


def test_no_caption_and_no_image_is_sampled_twice():
    found = captions_of(corpus(), seed=0)
    assert sorted(found["caption"].to_pylist()) == ["boat", "cat"]
