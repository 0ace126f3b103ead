"""Votes as they are read for an evaluation."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import UserError
from cluster.tables import SCHEMAS, Store, now
from jobs.evaluate import EvaluateConfig
from jobs.evaluate.inputs import load_votes

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
    return "" if pa.types.is_string(kind) else 0


def test_votes_on_labelled_queries_are_left_out_and_counted(store, tmp_path):
    (table,), _ = load_votes(votes_on(["a dog", "a cat"], tmp_path), store, set(IDS))
    assert [row.query for row in table.rows] == ["a cat"]
    assert (table.num_left_out, table.num_learned) == (0, 1)


def test_nothing_but_labelled_queries_is_refused(store, tmp_path):
    with pytest.raises(UserError, match="on a query that was labelled"):
        load_votes(votes_on(["a dog"], tmp_path), store, set(IDS))
