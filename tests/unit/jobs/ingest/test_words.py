"""Captions and tags: irregular rows, and metadata tables joined by file name."""

import json

import pyarrow as pa
import pytest
from pictures import write_photos
from pyarrow import fs, parquet

from cluster.errors import UserError
from cluster.profile import Stage
from jobs.ingest.config import IngestConfig
from jobs.ingest.sources.image_text import ImageText, TextColumns, read_text
from jobs.ingest.sources.metadata import read_metadata
from jobs.ingest.sources.opening import open_source as open_checked

DECODE = Stage(batch_size=4)


def open_source(source, **options):
    return open_checked(IngestConfig(source=str(source), **options), DECODE)


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
