"""Folders of image files: listings and readers."""

import os

import pyarrow as pa
import pytest
from pictures import encoded, gradient, write_photos

from cluster.compat.ray_data import Unreadable
from cluster.errors import UserError
from cluster.profile import Stage
from jobs.ingest.config import IngestConfig
from jobs.ingest.sources.folder import ImageFiles
from jobs.ingest.sources.opening import open_source as open_checked

DECODE = Stage(batch_size=4)


def open_source(source, **options):
    return open_checked(IngestConfig(source=str(source), **options), DECODE)


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


def test_a_file_that_cannot_be_opened_becomes_a_row_with_the_reason():
    reader = object.__new__(ImageFiles)
    (row,) = next(reader.read(Unreadable("cannot be opened: no such file"), "gone.jpg")).to_pylist()
    assert row == {"path": "gone.jpg", "bytes": b"", "error": "cannot be opened: no such file"}
