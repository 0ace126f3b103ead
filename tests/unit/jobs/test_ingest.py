"""Ingest without Ray: captions and tags, look-ups, listings, readers, and what the CPU stage rejects."""

import io
import json
import os
import tarfile

import numpy as np
import pyarrow as pa
import pytest
from pictures import encoded, gradient, readable, unreadable, write_photos
from pyarrow import fs, parquet

from actors.images import Fit, image_id
from cluster.compat.ray_data import Unreadable
from cluster.errors import UserError
from cluster.profile import Stage
from jobs.ingest import listing, sources
from jobs.ingest.config import IngestConfig
from jobs.ingest.image_text import ImageText, TextColumns, read_text
from jobs.ingest.lookup import Lookup
from jobs.ingest.metadata import read_metadata
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
from jobs.ingest.readers import ImageFiles, TarSamples

SETTINGS = DecodeSettings(Fit(96, 96), preview_px=64, max_pixels=10_000_000)
DECODE = Stage(batch_size=4)
EMPTY = Lookup(pa.array([], pa.string()))


def open_source(source, **options):
    return sources.open_source(IngestConfig(source=str(source), **options), DECODE)


# --- captions and tags


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"caption": " a\ncat "}, ImageText("a cat")),
        ({"captions": ["first", "longest of all", "short"]}, ImageText("first", "longest of all")),
        ({"captions": ["only"]}, ImageText("only")),
        ({"caption": "a", "detailed_caption": "b", "captions": ["c", "d"]}, ImageText("a", "b")),
        ({"tags": ["x", None, "x", " y "], "split": "train"}, ImageText(tags=("x", "y", "split:train"))),
        ({"tags": "x, y", "caption": float("nan")}, ImageText(tags=("x", "y"))),
        ({"caption": None, "split": None}, ImageText()),
        ({"caption": 7}, ImageText("7")),
    ],
)
def test_text_is_read_from_irregular_rows(row, expected):
    assert read_text(row, TextColumns()) == expected


def test_lookup_finds_exactly_its_keys():
    keys = [f"key {index}" for index in range(1000)] + ["été", "\udcff"[:0] + "x"]
    lookup = Lookup(pa.chunked_array([keys[:500], keys[500:]]))
    assert [lookup.row(key) for key in keys] == list(range(len(keys)))
    assert "key 1000" not in lookup and "" not in lookup and len(lookup) == 1002


def test_lookup_distinguishes_keys_with_equal_hashes(monkeypatch):
    monkeypatch.setattr("jobs.ingest.lookup._hash", lambda key: np.uint64(len(key)))
    lookup = Lookup(pa.array(["aa", "b", "cc", "dd"]))
    assert [lookup.row(key) for key in ("cc", "dd", "aa", "b", "ee")] == [2, 3, 0, 1, -1]


# --- the CPU stage


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


def test_an_unexpected_exception_rejects_only_that_image(monkeypatch):
    monkeypatch.setattr("actors.images.preview_jpeg", lambda image, side: 1 / 0)
    row = prepare_row(SourceRow("r.jpg", readable()["rotated.jpg"]), SETTINGS, EMPTY)
    assert (row["status"], row["stage"]) == (REJECTED, "decode") and "ZeroDivisionError" in row["error"]


# --- listings and sources


def test_a_missing_source_is_explained(tmp_path):
    with pytest.raises(UserError, match="'/nowhere/at/all' does not exist; give a folder"):
        open_source("/nowhere/at/all")
    with pytest.raises(UserError, match="cannot be reached"):
        open_source("nosuchscheme://bucket/x")


def test_a_folder_without_images_is_explained(tmp_path):
    (tmp_path / "notes.md").write_text("no images")
    with pytest.raises(UserError, match=f"'{tmp_path}' has no images"):
        open_source(tmp_path)
    with pytest.raises(UserError, match="has no tars; choose another --kind"):
        open_source(tmp_path, kind="webdataset")


def test_a_path_and_its_uri_open_the_same_folder(tmp_path):
    write_photos(tmp_path / "deep" / "er", 3)
    by_path, by_uri = open_source(tmp_path), open_source(f"file://{tmp_path}")
    assert by_path.kind == by_uri.kind == "folder" and by_path.num_inputs == 3
    batch = pa.table({"path": [f"{tmp_path}/deep/er/photo_0000.jpg"], "bytes": [b"x"], "error": [""]})
    assert list(by_path.rows(batch)) == list(by_uri.rows(batch))
    assert by_path.label == tmp_path.name and open_source(tmp_path, label="mine").label == "mine"


def test_file_names_that_are_not_utf8_are_rejected_without_failing_the_job(tmp_path):
    write_photos(tmp_path, 1)
    with open(os.path.join(os.fsencode(tmp_path), b"bad_\xff.jpg"), "wb") as file:
        file.write(encoded(gradient()))
    source = open_source(tmp_path)
    assert source.num_inputs == 2
    assert source.rejects == [(f"{tmp_path}/bad_\\xff.jpg", "the file's name is not UTF-8")]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("key", ["file_name", "file"])
def test_metadata_tables_are_joined_by_file_name(tmp_path, form, key):
    rows = [{key: "a/b.jpg", "caption": "a boat", "split": "train"}, {key: "./é.jpg", "caption": "tea"}]
    rows = [{"split": "", **row} for row in rows]
    path = tmp_path / f"metadata.{form}"
    if form == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif form == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        head = ",".join(rows[0])
        path.write_text("\n".join([head] + [",".join(row[name] for name in rows[0]) for row in rows]))
    metadata = read_metadata(fs.LocalFileSystem(), str(path), TextColumns())
    assert metadata.text_of("a/b.jpg") == ImageText("a boat", "", ("split:train",))
    assert metadata.text_of("é.jpg") == ImageText("tea")
    assert metadata.text_of("other.jpg") == ImageText()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "name,caption\na,b\n", "no column 'file_name' or 'file'; it has name, caption"),
        ("metadata.jsonl", "{not json", "cannot be read"),
        ("metadata.parquet", "not parquet", "cannot be read"),
    ],
)
def test_a_bad_metadata_table_is_explained(tmp_path, name, content, message):
    write_photos(tmp_path, 1)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [b"x"]}, "neither a column 'bytes' nor 'uri', only image"),
        ({"bytes": [1.5]}, "column 'bytes' .* holds double, not a file's bytes"),
        ({"uri": [3]}, "column 'uri' .* holds int64, not text"),
    ],
)
def test_a_bad_parquet_column_is_explained(tmp_path, columns, message):
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / "x.parquet")


def test_a_broken_parquet_file_is_rejected_and_the_others_are_read(tmp_path):
    parquet.write_table(pa.table({"bytes": [b"x"]}), tmp_path / "good.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nonsense")
    source = open_source(tmp_path)
    assert (source.kind, source.num_inputs, len(source.rejects)) == ("parquet", 1, 1)
    (tmp_path / "good.parquet").unlink()
    with pytest.raises(UserError, match="no Parquet file that can be read"):
        open_source(tmp_path)


def test_table_rows_have_bytes_or_a_reason_for_their_absence(tmp_path):
    photo = encoded(gradient())
    (tmp_path / "p.jpg").write_bytes(photo)
    location = listing.locate(str(tmp_path))
    batch = pa.table(
        {
            "bytes": pa.array([photo, None, None, None], pa.binary()),
            "uri": ["http://x/1", "p.jpg", "q.jpg", None],
            "path": [f"{tmp_path}/t.parquet"] * 4,
        }
    )
    config = IngestConfig(source=str(tmp_path))
    given, read, gone, none = sources.table_rows(batch, location=location, config=config)
    assert (given.uri, given.data) == ("http://x/1", photo)
    assert (read.uri, read.data) == (f"{tmp_path}/p.jpg", photo)
    assert "cannot be opened" in gone.error and "neither" in none.error


def test_image_columns_of_hugging_face_datasets_are_read(tmp_path):
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array([{"bytes": b"x", "path": "a"}], kind), "path": ["t"]})
    config = IngestConfig(source=str(tmp_path), bytes_column="image")
    assert sources.table_columns(table.schema, config, "t") == ["image"]
    assert next(sources.table_rows(table, location=listing.locate(str(tmp_path)), config=config)).data == b"x"


# --- readers


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def read_all(reader_type, path):
    """The rows that a reader yields for one file, without Ray's scheduling."""
    reader = object.__new__(reader_type)
    with open(path, "rb") as file:
        return [row for table in reader.read(pa.PythonFile(file), str(path)) for row in table.to_pylist()]


def test_tar_members_are_grouped_into_samples_by_key(tmp_path):
    photo = encoded(gradient())
    write_tar(
        tmp_path / "s.tar",
        [
            ("a/1.jpg", photo),
            ("a/1.txt", b"a boat"),
            ("a/2.json", b'{"caption": "tea", "split": "train"}'),
            ("a/2.JPEG", photo),
            ("3.txt", b"caption without image"),
            ("4.jpg", photo),
            ("4.json", b"not json"),
        ],
    )
    rows = read_all(TarSamples, tmp_path / "s.tar")
    found = list(sources.tar_rows(pa.Table.from_pylist(rows), prefix="", columns=TextColumns()))
    tar = tmp_path / "s.tar"
    assert [row.uri for row in found] == [f"{tar}#a/1.jpg", f"{tar}#a/2.JPEG", f"{tar}#/3", f"{tar}#4.jpg"]
    assert [row.text.caption for row in found] == ["a boat", "tea", "caption without image", ""]
    assert found[1].text.tags == ("split:train",)
    assert [bool(row.error) for row in found] == [False, False, True, False]


def test_a_truncated_tar_keeps_its_complete_samples(tmp_path):
    photo = encoded(gradient(400, 300))
    write_tar(tmp_path / "s.tar", [(f"{index}.jpg", photo) for index in range(5)])
    whole = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(whole[: 3 * len(whole) // 5])
    rows = read_all(TarSamples, tmp_path / "s.tar")
    assert sum(row["bytes"] == photo for row in rows) >= 2
    assert [row["error"] for row in rows if row["error"]] != []
    assert "truncated" in " ".join(row["error"] for row in rows)


def test_a_file_that_cannot_be_opened_becomes_a_row_with_the_reason():
    reader = object.__new__(ImageFiles)
    (row,) = next(reader.read(Unreadable("cannot be opened: no such file"), "gone.jpg")).to_pylist()
    assert row == {"path": "gone.jpg", "bytes": b"", "error": "cannot be opened: no such file"}
