"""Votes as they are read for an evaluation."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import UserError
from cluster.schemas import HUMAN
from cluster.tables import SCHEMAS, EncoderRecord, Store, now
from jobs.evaluate import trained_on
from jobs.evaluate.config import EvaluateConfig
from jobs.evaluate.inputs import load_queries, load_votes, sample_captions

IDS = ["a" * 64, "b" * 64]


def votes_on(queries, tmp_path):
    row = {"group_a": IDS[:1], "group_b": IDS[1:], "votes_accuracy_a": 3, "votes_accuracy_b": 1}
    row |= {"votes_aesthetic_a": 2, "votes_aesthetic_b": 4}
    path = str(tmp_path / "hpir.parquet")
    pq.write_table(pa.Table.from_pylist([{"query": query, **row} for query in queries]), path)
    return EvaluateConfig(hpir=(path,))


@pytest.fixture
def store(tmp_path):
    """Two images, and the query "a dog" labelled."""
    store = Store(str(tmp_path / "store"))
    images = [
        {name: _empty(SCHEMAS["images"].field(name).type) for name in SCHEMAS["images"].names}
        | {"image_id": image_id, "uri": f"{image_id}.jpg", "added_at": now()}
        for image_id in IDS
    ]
    store.merge("images", pa.Table.from_pylist(images, SCHEMAS["images"]), on=["image_id"])
    schema = SCHEMAS["rankings"]
    ranking = {field.name: _empty(field.type) for field in schema} | {"query": "a dog", "run_id": "r"}
    store.merge("rankings", pa.Table.from_pylist([ranking], schema), on=["run_id", "query"])
    return store


def _empty(kind):
    if pa.types.is_timestamp(kind):
        return now()
    if pa.types.is_list(kind):
        return []
    if pa.types.is_binary(kind):
        return b""
    if pa.types.is_boolean(kind):
        return False
    return "" if pa.types.is_string(kind) else 0


def test_votes_on_labelled_queries_are_left_out_and_counted(store, tmp_path):
    config = votes_on(["a dog", "a cat"], tmp_path)
    (table,), _ = load_votes(config, store, set(IDS), trained_on.queries(store))
    assert [row.query for row in table.rows] == ["a cat"]
    assert (table.num_left_out, table.num_learned) == (0, 1)


def test_nothing_but_labelled_queries_is_refused(store, tmp_path):
    with pytest.raises(UserError, match="on a query that was labelled"):
        load_votes(votes_on(["a dog"], tmp_path), store, set(IDS), trained_on.queries(store))


def test_queries_that_were_labelled_or_chosen_for_are_not_asked(store, tmp_path):
    schema = SCHEMAS["preferences"]
    chosen = {field.name: _empty(field.type) for field in schema} | {"query": "a cat", "source": HUMAN}
    key = ["run_id", "query", "winner", "loser"]
    store.merge("preferences", pa.Table.from_pylist([chosen], schema), on=key)
    known = trained_on.queries(store)
    assert known == {"a dog", "a cat"}
    path = tmp_path / "queries.txt"
    path.write_text("a  dog\na cat\na boat\n")
    assert load_queries(EvaluateConfig(queries=str(path)), store, known) == (["a boat"], 2)
    path.write_text("a dog\n")
    with pytest.raises(UserError, match=r"all 1 queries in .* were labelled or chosen for"):
        load_queries(EvaluateConfig(queries=str(path)), store, known)


@pytest.fixture
def aligned(store, tmp_path):
    """An encoder that learned from the caption of the first image."""
    corpus = tmp_path / "training" / "corpus"
    corpus.mkdir(parents=True)
    pq.write_table(pa.table({"image_id": IDS}), corpus / "images.parquet")
    rows = pa.table({"image": pa.array([0], pa.int32()), "caption": ["red"]})
    pq.write_table(rows, corpus / "captions.parquet")
    training = {"align": {"training": str(corpus.parent)}}
    return EncoderRecord(encoder="child", parent="root", checkpoint="c", dim=2, metrics=training)


def test_captions_of_images_that_alignment_learned_from_are_not_asked(store, aligned):
    known = trained_on.captioned_images(store, [aligned])
    assert known == {IDS[0]}
    found = sample_captions({IDS[0]: "red", IDS[1]: "blue"}, "caption", 0, 0, known)
    assert (found.texts, found.num_learned, found.owners) == (("blue",), 1, {IDS[0]: -1, IDS[1]: 0})


def test_what_an_ancestor_learned_counts_and_what_nobody_knows_is_said(store, aligned):
    grandchild = EncoderRecord(encoder="grandchild", parent="child", checkpoint="g", dim=2)
    store.register_encoder(aligned)
    assert trained_on.captioned_images(store, [grandchild]) is None  # its own training is not known
    training = {"metrics": {"align": {"training": aligned.metrics["align"]["training"]}}}
    assert trained_on.captioned_images(store, [grandchild.model_copy(update=training)]) == {IDS[0]}
    root = EncoderRecord(encoder="root", checkpoint="r", dim=2)
    assert trained_on.captioned_images(store, [root]) == frozenset()
    assert sample_captions({IDS[0]: "red"}, "caption", 0, 0, None).num_learned is None


@pytest.mark.parametrize("name", ["years.csv", "years.txt"])
def test_queries_that_are_years_are_asked_as_text(store, tmp_path, name):
    (tmp_path / name).write_text(("query\n" if name.endswith("csv") else "") + "1984\n 2024 \n1984\n")
    queries, _ = load_queries(EvaluateConfig(queries=str(tmp_path / name)), store)
    assert queries == ["1984", "2024"]
