"""The counts of the report: every input is one of them, and they are what the tables gained."""

import pyarrow as pa
import pytest

from actors.images import Fit
from jobs.ingest.prepare import IGNORED, KNOWN, NEW, REJECTED, prepared_schema
from jobs.ingest.writer import Writer

OUTCOMES = ("num_images", "num_known", "num_duplicates", "num_rejects")


class Vectors:
    """In place of the table of vectors: the ids that have one."""

    def __init__(self, ids: str = "") -> None:
        self.ids = set(ids)

    def merge(self, rows: pa.Table) -> int:
        new = set(rows["image_id"].to_pylist()) - self.ids
        self.ids |= new
        return len(new)


@pytest.fixture
def writer(store, monkeypatch) -> Writer:
    monkeypatch.setattr("jobs.ingest.writer.VectorTable", lambda *_: Vectors())
    return Writer(store, None, "label")  # type: ignore[arg-type]


def batch(*rows: dict) -> pa.Table:
    schema = prepared_schema(Fit(1, 1))
    schema = schema.append(pa.field("vector", pa.list_(pa.float32())))
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema)


def new(image_id: str) -> dict:
    words = {"caption": "", "detailed_caption": "", "tags": []}
    size = {"width_px": 1, "height_px": 1, "preview": b"x", "pixels": b"abc", "vector": [1.0]}
    return {"status": NEW, "uri": f"{image_id}.jpg", "image_id": image_id, **words, **size}


def rejected(uri: str) -> dict:
    return {"status": REJECTED, "uri": uri, "stage": "read", "error": "gone"}


def write(writer: Writer, *rows: dict) -> dict[str, int]:
    """Write the rows in two batches; returns the counts."""
    half = len(rows) // 2
    for some in (rows[:half], rows[half:]):
        writer.add(batch(*some))
        writer.flush()
    assert writer.counts["num_inputs"] == sum(writer.counts[name] for name in OUTCOMES)
    return writer.counts


def test_every_input_has_one_outcome_and_the_tables_gain_what_is_counted(writer, store):
    writer.reject_inputs([("listed", "a FIFO"), ("listed", "a FIFO")])
    known = {"status": KNOWN, "uri": "k.jpg", "image_id": "k"}
    ignored = [{"status": IGNORED, "uri": uri} for uri in ("a.txt", "b.TXT", "README")]
    rows = [
        new("a"),
        new("a"),
        rejected("x"),
        known,
        new("b"),
        new("a"),
        rejected("x"),
        rejected("y"),
        *ignored,
    ]
    counts = write(writer, *rows)
    assert [counts[name] for name in OUTCOMES] == [2, 1, 2 + 1 + 1, 3]
    assert writer.ignored == {"*.txt": 2, "no extension": 1}
    assert (store.count("images"), store.count("rejects")) == (2, 3)
    again = Writer(store, None, "label")  # type: ignore[arg-type]
    again.vectors = writer.vectors
    assert write(again, rejected("x"), rejected("z"))["num_rejects"] == 2
    assert store.count("rejects") == 4


@pytest.mark.parametrize(("ids", "expected"), [("ab", [2, 0, 1, 0]), ("", [2, 0, 1, 0])])
def test_images_whose_vectors_a_killed_run_has_written_are_new(writer, ids, expected):
    writer.vectors = Vectors(ids)  # type: ignore[assignment]
    counts = write(writer, new("a"), new("b"), new("a"))
    assert [counts[name] for name in OUTCOMES] == expected


def test_stored_images_that_get_a_vector_of_another_encoder_are_known(writer, store):
    write(writer, new("a"), new("b"))
    other = Writer(store, None, "label")  # type: ignore[arg-type]
    counts = write(other, new("a"), new("b"), new("b"), new("c"))
    assert [counts[name] for name in OUTCOMES] == [1, 2, 1, 0] and counts["num_embeddings"] == 3
