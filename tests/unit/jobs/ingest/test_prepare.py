"""The CPU stage: what it accepts and rejects."""

import pyarrow as pa
from pictures import readable, unreadable

from actors.images import Fit, image_id
from jobs.ingest.lookup import Lookup
from jobs.ingest.prepare import (
    KNOWN,
    NEW,
    REJECTED,
    DecodeSettings,
    SourceRow,
    prepare,
    prepare_row,
    prepared_schema,
)
from jobs.ingest.sources.image_text import ImageText

SETTINGS = DecodeSettings(Fit(96, 96), preview_px=64, max_pixels=10_000_000)
EMPTY = Lookup(pa.array([], pa.string()))


def test_prepare_accepts_or_rejects_each_row_and_never_raises():
    rows = [SourceRow(name, data, ImageText("c", "d", ("t",))) for name, data in readable().items()]
    rows += [SourceRow(name, data) for name, (data, _) in unreadable().items()] + [
        SourceRow("gone.jpg", b"", error="gone")
    ]
    known = Lookup(pa.array([image_id(readable()["grey.jpg"])]))
    table = prepare(pa.table({"x": [1]}), rows=lambda _: rows, settings=SETTINGS, known=known)
    assert table.schema == prepared_schema(SETTINGS.fit)
    status = dict(zip(table["uri"].to_pylist(), table["status"].to_pylist(), strict=True))
    assert status.pop("grey.jpg") == KNOWN
    assert {name for name, value in status.items() if value == NEW} == set(readable()) - {"grey.jpg"}
    assert {name for name, value in status.items() if value == REJECTED} == {*unreadable(), "gone.jpg"}


def test_prepared_rows_have_the_columns_of_the_tables():
    data = readable()["rotated.jpg"]
    row = prepare_row(SourceRow("r.jpg", data, ImageText("c", "d", ("t",))), SETTINGS, EMPTY)
    assert (row["image_id"], row["width_px"], row["height_px"]) == (image_id(data), 60, 120)
    assert (row["caption"], row["detailed_caption"], row["tags"]) == ("c", "d", ["t"])
    assert len(row["pixels"]) == 3 * 96 * 96 and row["preview"][:2] == b"\xff\xd8"


def test_an_ignored_file_and_an_image_with_words_that_cannot_be_stored_are_not_new_images():
    assert prepare_row(SourceRow("a.txt", b"", ignored=True), SETTINGS, EMPTY)["status"] == "ignored"
    data = readable()["rotated.jpg"]
    row = prepare_row(SourceRow("r.jpg", data, ImageText(error="half an emoji")), SETTINGS, EMPTY)
    assert (row["status"], row["stage"], row["error"]) == (REJECTED, "read", "half an emoji")


def test_an_unexpected_exception_rejects_only_that_image(monkeypatch):
    monkeypatch.setattr("actors.images.preview_jpeg", lambda image, side: 1 / 0)
    row = prepare_row(SourceRow("r.jpg", readable()["rotated.jpg"]), SETTINGS, EMPTY)
    assert (row["status"], row["stage"]) == (REJECTED, "decode") and "ZeroDivisionError" in row["error"]
