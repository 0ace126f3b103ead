"""A deleted image is gone from every table, also for readers that have the tables open."""

import json
import pickle

import numpy as np
import pyarrow as pa
import pytest

from actors.retriever import Retriever
from cluster.errors import UserError
from cluster.tables import SCHEMAS, Snapshot, Store, embeddings_schema, embeddings_table, now
from jobs.delete import job as delete
from jobs.delete.__main__ import main
from jobs.delete.config import DeleteConfig
from jobs.evaluate.gallery import embedded_ids, scan_vectors, vectors_of

FIRST, SECOND = "1" * 16, "2" * 16
IDS = [f"{index:064x}" for index in range(6)]


def rows_of(name: str, rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, SCHEMAS[name])


def about(index: int) -> dict:
    sizes = {"width_px": 640, "height_px": 480}
    return {"image_id": IDS[index], "caption": f"photo {index}", "tags": [], "added_at": now(), **sizes}


@pytest.fixture
def filled(store) -> Store:
    """Six images, two encoders of which the second lacks image 0, three preferences, two rankings."""
    store.merge("images", rows_of("images", [about(index) for index in range(6)]), on=["image_id"])
    vectors = np.eye(6, dtype=np.float32)
    for fingerprint, first in ((FIRST, 0), (SECOND, 1)):
        rows = [about(index) | {"vector": vectors[index]} for index in range(first, 6)]
        rows = pa.Table.from_pylist(rows, embeddings_schema(6))
        store.merge(embeddings_table(fingerprint), rows, on=["image_id"])
    pairs = [(0, 1), (1, 2), (2, 3)]
    preferences = [{"query": "q", "run_id": "r", "winner": IDS[a], "loser": IDS[b]} for a, b in pairs]
    on = ["run_id", "query", "winner", "loser"]
    store.merge("preferences", rows_of("preferences", preferences), on=on)
    rankings = [
        {"run_id": "r", "query": str(index), "image_ids": ids} for index, ids in enumerate((IDS, IDS[3:]))
    ]
    store.merge("rankings", rows_of("rankings", rankings), on=["run_id", "query"])
    return store


def test_an_image_is_removed_from_every_table(filled):
    # `images`, two tables of vectors, the pairs that it won and lost, one ranking
    assert filled.delete_image(IDS[1]) == 1 + 2 + 2 + 1
    for name in ("images", embeddings_table(FIRST), embeddings_table(SECOND)):
        assert IDS[1] not in filled.read(name)["image_id"].to_pylist()
    assert filled.read("preferences")["winner"].to_pylist() == [IDS[2]]
    assert filled.read("rankings")["query"].to_pylist() == ["1"]
    with pytest.raises(KeyError):
        filled.delete_image(IDS[1])


def test_vectors_without_a_row_in_images_are_removed_too(filled):
    """An ingest that is killed between the two writes leaves such vectors."""
    filled.open("images").delete(f"image_id = '{IDS[5]}'")
    assert filled.delete_image(IDS[5]) == 2 + 2, "two tables of vectors, both rankings"
    with pytest.raises(KeyError):
        filled.delete_image(IDS[5])


def test_missing_tables_are_skipped(store):
    with pytest.raises(KeyError):
        store.delete_image(IDS[0])
    store.merge("images", rows_of("images", [about(0)]), on=["image_id"])
    assert store.delete_image(IDS[0]) == 1


@pytest.mark.parametrize("text", ["", "x' OR 'a' = 'a", "A" * 64, IDS[0] + "\n", f"{IDS[0]}' --"])
def test_only_a_valid_image_id_reaches_the_sql(filled, text):
    with pytest.raises(KeyError):
        filled.delete_image(text)
    assert filled.count("images") == 6


def test_a_fresh_store_sees_deletions_by_others_at_once(filled):
    fresh, stale = Store(filled.uri, fresh=True), Store(filled.uri)
    held, old = Retriever(fresh, FIRST), Retriever(stale, FIRST)
    query, version = np.eye(6, dtype=np.float32)[1:2], held.version
    assert held.search(query, 1)[0][0]["image_id"] == IDS[1]
    filled.delete_image(IDS[1])
    assert held.search(query, 1)[0][0]["image_id"] != IDS[1]
    assert old.search(query, 1)[0][0]["image_id"] == IDS[1], "the default keeps the version that it opened"
    assert held.version > version
    (then,) = held.search(query, 6, version=version)
    assert {row["image_id"] for row in then if row.get("deleted")} == {IDS[1]}, "it must not be shown again"
    assert len(then) == 6


def test_a_fresh_store_stays_fresh_when_pickled(store):
    assert pickle.loads(pickle.dumps(Store(store.uri, fresh=True))).fresh
    assert not pickle.loads(pickle.dumps(store)).fresh


def test_an_evaluation_sees_the_images_of_its_start_also_in_other_processes(filled):
    snapshot = Snapshot(filled.uri)
    table = embeddings_table(FIRST)
    assert embedded_ids(snapshot, FIRST) == set(IDS) and snapshot.count("images") == 6
    filled.delete_image(IDS[1])
    filled.merge("images", rows_of("images", [about(0) | {"image_id": "e" * 64}]), on=["image_id"])
    for store in (snapshot, pickle.loads(pickle.dumps(snapshot))):
        assert set(vectors_of(store, table, IDS)) == set(IDS)
        assert [ids for ids, _ in scan_vectors(store, table, None)] == [IDS]
        assert Retriever(store, FIRST).search(np.eye(6, dtype=np.float32)[1:2], 1)[0][0]["image_id"] == IDS[1]
        assert sorted(store.read("images", ["image_id"])["image_id"].to_pylist()) == IDS
    assert filled.count(table) == 5


def test_the_verb_reports_removed_rows_and_unknown_ids(filled, capfd):
    main(["--store", filled.uri, "--image-ids", IDS[0], IDS[0], "f" * 64])
    report = json.loads(capfd.readouterr().out)
    assert report == {"num_images": 1, "num_rows": 4, "unknown": ["f" * 64]}


@pytest.mark.parametrize("malformed", ["nonsense", "", "A" * 64, f"{IDS[1]}\n", "f" * 63])
def test_the_verb_deletes_nothing_if_an_id_is_malformed(filled, malformed):
    with pytest.raises(UserError, match="is no image id: give the 64 characters"):
        delete.run(DeleteConfig(store=filled.uri, image_ids=(IDS[0], malformed)))
    assert filled.count("images") == 6


def test_the_verb_fails_if_the_store_has_none_of_the_images(filled):
    with pytest.raises(UserError, match=r"has none of the 2 images, such as f{64}: check the ids"):
        delete.run(DeleteConfig(store=filled.uri, image_ids=("f" * 64, "e" * 64)))


def test_the_verb_refuses_a_store_without_images(store):
    with pytest.raises(UserError, match="kallos ingest"):
        delete.run(DeleteConfig(store=store.uri, image_ids=(IDS[0],)))
