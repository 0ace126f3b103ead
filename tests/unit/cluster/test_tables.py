"""Tables: concurrent merges insert each key once, and a missing table, encoder or alias is named."""

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from lancedb.index import BTree

from cluster.errors import UserError
from cluster.schemas import KEY_POSITION, key_of
from cluster.tables import SCHEMAS, EncoderRecord, Store, embeddings_schema, embeddings_table, now

FINGERPRINT = "0123456789abcdef"
PARENT = "fedcba9876543210"
NUM_WRITERS = 2


def rejects(uris, error="truncated") -> pa.Table:
    rows = [{"uri": uri, "stage": "decode", "error": error, "at": now()} for uri in uris]
    return pa.Table.from_pylist(rows, SCHEMAS["rejects"])


def preference(winner, loser, query="red barn") -> dict:
    cells = {"winner_cell": [0, 0], "loser_cell": [1, 1]}
    names = {name: "x" for name in ("rephrased", "style", "source", "judge", "run_id")}
    return {
        "query": query,
        "winner": winner,
        "loser": loser,
        "p_winner": 0.75,
        "consistent": True,
        **cells,
        **names,
    }


def test_merge_inserts_each_key_once(store):
    assert store.merge("rejects", rejects(["a", "b", "a"]), on=["uri"]) == 2
    assert store.merge("rejects", rejects(["b", "c"], error="later"), on=["uri"]) == 1
    rows = {row["uri"]: row["error"] for row in store.read("rejects").to_pylist()}
    assert rows == {"a": "truncated", "b": "truncated", "c": "later"}
    assert store.merge("rejects", rejects(["b", "c"]), on=["uri"]) == 0


def test_merge_keeps_the_first_row_of_a_repeated_key(store):
    rows = pa.concat_tables([rejects(["a"], error="first"), rejects(["a"], error="second")])
    store.merge("rejects", rows, on=["uri"])
    assert store.read("rejects", columns=["error"]).to_pylist() == [{"error": "first"}]


def test_merging_no_rows_creates_an_empty_table(store):
    assert store.merge("rejects", rejects([]), on=["uri"]) == 0
    assert store.exists("rejects")
    assert store.count("rejects") == 0


def test_rows_that_differ_in_one_column_of_a_composite_key_are_both_inserted(store):
    pairs = [preference("a", "b"), preference("a", "c"), preference("a", "b", query="blue barn")]
    rows = pa.Table.from_pylist(pairs, SCHEMAS["preferences"])
    on = ["run_id", "query", "winner", "loser"]
    assert store.merge("preferences", rows, on=on) == 3
    assert store.merge("preferences", rows, on=on) == 0
    assert key_of(store.open("preferences").schema) == on


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_a_table_of_every_schema_is_read_with_that_schema(store, name):
    key = SCHEMAS[name].names[:1]
    assert store.merge(name, SCHEMAS[name].empty_table(), on=key) == 0
    assert store.read(name).schema == SCHEMAS[name]


def test_read_returns_all_rows_named_columns_or_rows_that_match_a_filter(store):
    store.merge("rejects", rejects([f"{number:05}" for number in range(5_000)]), on=["uri"])
    assert store.read("rejects").num_rows == store.count("rejects") == 5_000
    some = store.read("rejects", columns=["uri", "stage"], where="uri < '00003'")
    assert some.column_names == ["uri", "stage"]
    assert sorted(some["uri"].to_pylist()) == ["00000", "00001", "00002"]
    assert store.count("rejects", where="uri < '00003'") == 3
    assert KEY_POSITION not in (some.schema.field("uri").metadata or {})


def test_embeddings_are_searched_by_vector_and_filtered_by_tag(store):
    vectors = np.eye(3, dtype=np.float32)
    images = {name: [b"" if name == "preview" else 1] * 3 for name in ("width_px", "height_px")}
    rows = pa.table(
        {
            **images,
            "image_id": ["a", "b", "c"],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 3),
            "caption": ["", "", ""],
            "tags": [["split:train"], ["split:gallery"], []],
            "source": ["s"] * 3,
            "added_at": [now()] * 3,
            "aesthetic": [0.2, 0.5, 0.8],
        }
    )
    name = embeddings_table(FINGERPRINT)
    assert name == f"embeddings_{FINGERPRINT}"
    ordered = rows.select(embeddings_schema(3).names).cast(embeddings_schema(3))
    assert store.merge(name, ordered, on=["image_id"]) == 3
    found = store.open(name).search(vectors[1]).where("array_contains(tags, 'split:gallery')").to_list()
    assert [row["image_id"] for row in found] == ["b"]


@pytest.mark.parametrize(
    ("rows", "on", "message"),
    [
        (rejects(["a"]).drop_columns(["stage"]), ["uri"], "lack the columns stage"),
        (rejects(["a"]), ["image_id"], "lack the columns image_id"),
        (rejects([None]), ["uri"], "null"),
        (rejects(["a"]), ["uri", "stage"], r"has the key \['uri'\]"),
    ],
)
def test_merge_refuses_rows_with_wrong_columns_or_keys(store, rows, on, message):
    store.merge("rejects", rejects(["z"]), on=["uri"])
    with pytest.raises(ValueError, match=message):
        store.merge("rejects", rows, on=on)
    assert store.count("rejects") == 1


def test_store_can_be_pickled(store):
    store.merge("rejects", rejects(["a"]), on=["uri"])
    assert pickle.loads(pickle.dumps(store)).count("rejects") == 1


def test_relative_store_keeps_its_place_when_the_working_directory_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("store")
    monkeypatch.chdir("/")
    assert store.uri == str(tmp_path / "store")
    assert Store("s3://bucket/store").uri == "s3://bucket/store"


@pytest.mark.parametrize(
    ("name", "verb"),
    [("images", "ingest"), ("preferences", "label"), (embeddings_table(FINGERPRINT), "index")],
)
def test_error_for_a_missing_table_names_the_verb_that_makes_it(store, name, verb):
    with pytest.raises(UserError, match=f"{store.uri} has no table '{name}': run `kallos {verb}`"):
        store.open(name)


def test_a_file_is_refused_as_a_store(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        Store(str(tmp_path / "file")).exists("images")


def test_encoders_are_registered_once_and_found_by_fingerprint_or_alias(store):
    root = EncoderRecord(encoder=PARENT, checkpoint="models/mini/encoder", dim=128)
    child = EncoderRecord(
        encoder=FINGERPRINT,
        parent=PARENT,
        checkpoint="out",
        dim=128,
        metrics={"recall@10": 0.9, "epochs": [1]},
    )
    for record in (root, child, child.model_copy(update={"checkpoint": "another"})):
        store.register_encoder(record)
    assert store.count("encoders") == 2
    store.set_alias("baseline", PARENT)
    assert store.encoder("baseline") == root
    assert store.encoder(FINGERPRINT) == child


def test_alias_points_to_the_encoder_that_was_set_last(store):
    assert store.aliases() == {}
    for fingerprint in (PARENT, FINGERPRINT, FINGERPRINT, PARENT):
        store.set_alias("live", fingerprint)
        assert store.alias("live") == fingerprint
    store.set_alias("baseline", FINGERPRINT)
    assert store.aliases() == {"live": PARENT, "baseline": FINGERPRINT}
    assert store.count("aliases", where="alias = 'live'") == 3


def test_error_for_an_unknown_encoder_or_alias_lists_those_that_exist(store):
    with pytest.raises(UserError, match="no alias 'live'; its aliases are none"):
        store.alias("live")
    store.register_encoder(EncoderRecord(encoder=FINGERPRINT, checkpoint="x", dim=4))
    store.set_alias("baseline", FINGERPRINT)
    with pytest.raises(UserError, match=f"no encoder 'live'; it has baseline, {FINGERPRINT}"):
        store.encoder("live")


def merge_overlapping(store: Store, writer: int, barrier) -> int:
    """Make twelve merges in step with the other writers. All of them write half of the keys."""
    inserted = 0
    for turn in range(12):
        shared = [f"shared-{turn}-{number}" for number in range(10)]
        own = [f"own-{writer}-{turn}-{number}" for number in range(10)]
        barrier.wait(timeout=60)
        inserted += store.merge("rejects", rejects(shared + own), on=["uri"])
    return inserted


def create_together(store: Store, writer: int, barrier) -> int:
    """Write the first row of forty new stores, in step with the other writers."""
    stores = [Store(f"{store.uri}/{number}") for number in range(40)]
    for new in stores:
        barrier.wait(timeout=60)
        new.merge("rejects", rejects([str(writer)]), on=["uri"])
    barrier.wait(timeout=60)
    return sum(new.count("rejects") for new in stores)


def move_alias(store: Store, writer: int, barrier) -> int:
    barrier.wait(timeout=60)
    for turn in range(5):
        store.set_alias("live", f"{writer}{turn}".ljust(16, "0"))
    return 0


@pytest.fixture(scope="module")
def at_once():
    """`at_once(function, store)`: the results of `function(store, writer, barrier)` in each process."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(NUM_WRITERS, mp_context=context) as pool:

        def call(function, store: Store) -> list[int]:
            barrier = manager.Barrier(NUM_WRITERS)
            futures = [pool.submit(function, store, writer, barrier) for writer in range(NUM_WRITERS)]
            return [future.result(timeout=120) for future in futures]

        yield call


def test_concurrent_merges_of_the_same_new_keys_lose_and_duplicate_no_row(store, at_once):
    inserted = at_once(merge_overlapping, store)
    uris = store.read("rejects", columns=["uri"])["uri"].to_pylist()
    assert len(uris) == len(set(uris)) == 12 * 10 + NUM_WRITERS * 12 * 10
    assert sum(inserted) == len(uris), "each new row is counted by exactly one writer"


def test_concurrent_merges_duplicate_no_row_when_the_key_is_indexed(store, at_once):
    store.merge("rejects", rejects([f"old-{number}" for number in range(500)]), on=["uri"])
    store.open("rejects").create_index("uri", config=BTree())
    inserted = at_once(merge_overlapping, store)
    uris = store.read("rejects", columns=["uri"])["uri"].to_pylist()
    assert len(uris) == len(set(uris)) == 500 + sum(inserted)


def test_concurrent_writers_of_an_alias_get_different_versions(store, at_once):
    at_once(move_alias, store)
    versions = sorted(store.read("aliases", columns=["version"])["version"].to_pylist())
    assert versions == list(range(1, 5 * NUM_WRITERS + 1))
    assert store.alias("live")[1] == "4", "the last move of some writer counts"


def test_processes_that_create_a_table_at_once_do_not_empty_it(store, at_once):
    assert at_once(create_together, store) == [40 * NUM_WRITERS] * NUM_WRITERS


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("uri >", "sql parser error"),
        ("colour = 3", "No field named colour"),
        ("uri", "does not return a boolean"),
        ("stage = 5", "literal"),
        ("cast(uri AS int) > 3", "Cannot cast string 'a'"),
        ("regexp_like(uri, '(')", "regex"),
        ("1 / 0 = 1", "Divide by zero"),
        ("count(uri) > 1", "not"),
        ("uri IN (SELECT uri FROM rejects)", "not supported"),
        ("uri = 'a'; DROP TABLE rejects", "has a `;`"),
        (" ", "expression"),
    ],
)
def test_filter_that_cannot_be_used_is_refused_in_one_line(store, where, reason):
    store.merge("rejects", rejects(["a"]), on=["uri"])
    with pytest.raises(UserError, match="The filter ") as caught:
        store.read("rejects", ["uri"], where)
    message = str(caught.value)
    assert reason in message and repr(where) in message
    assert "\n" not in message and ".rs" not in message and len(message) < 500
    if where != "count(uri) > 1":
        with pytest.raises(UserError, match="The filter "):
            store.count("rejects", where)


def test_semicolon_inside_a_text_is_part_of_a_filter(store):
    store.merge("rejects", rejects(["a;b", "it's;"]), on=["uri"])
    assert store.count("rejects", "uri = 'a;b' OR uri = 'it''s;'") == 2


def test_reading_a_store_that_does_not_exist_makes_no_folder(store, tmp_path):
    assert not store.exists("images") and store.names() == [] and store.aliases() == {}
    assert list(tmp_path.iterdir()) == []
