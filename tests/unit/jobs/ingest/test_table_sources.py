"""Parquet and Lance sources."""

import os

import pyarrow as pa
import pytest
from pictures import encoded, gradient
from pyarrow import parquet

from cluster.errors import UserError
from cluster.profile import Stage
from jobs.ingest.config import IngestConfig
from jobs.ingest.prepare import SourceRow
from jobs.ingest.sources import listing
from jobs.ingest.sources.opening import open_source as open_checked
from jobs.ingest.sources.source import source_rows
from jobs.ingest.sources.tables import ParquetRows, lance_rows, table_columns, table_rows

DECODE = Stage(batch_size=4)
PHOTO = encoded(gradient())
STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def open_source(source, **options):
    return open_checked(IngestConfig(source=str(source), **options), DECODE)


def rows_of(path, **options) -> list[SourceRow]:
    """The rows of Parquet files at a path, as the job reads them."""
    location = listing.locate(str(path))
    files = listing.parquet_of(listing.list_files(location, False).files)
    reader = ParquetRows(location, files, IngestConfig(source=str(path), **options))
    return [row for block in reader.read_all() for row in source_rows(block)]


def rows_in(tmp_path, columns: dict, **options) -> list[SourceRow]:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    parquet.write_table(table, tmp_path / "x.parquet")
    return rows_of(tmp_path / "x.parquet", **options)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [b"x"]}, "neither a column 'bytes' nor 'uri', only image"),
        ({"bytes": [1.5]}, "column 'bytes' .* holds double, not a file's bytes"),
        ({"uri": [3]}, "column 'uri' .* holds int64, not text"),
        ({f"column_{n}": [0] for n in range(1000)}, "column_19 and 980 more: name the column"),
    ],
)
def test_a_bad_parquet_column_is_explained(tmp_path, columns, message):
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / "x.parquet")


def test_a_column_that_is_there_twice_is_explained(tmp_path):
    table = pa.table([[b"x"], ["a"], ["b"]], names=["bytes", "caption", "caption"])
    parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(UserError, match="'caption' more than once"):
        open_source(tmp_path)


def test_a_broken_parquet_file_is_rejected_and_the_others_are_read(tmp_path):
    parquet.write_table(pa.table({"bytes": [b"x"]}), tmp_path / "good.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nonsense")
    parquet.write_table(pa.table({"id": [1]}), tmp_path / "other.parquet")
    source = open_source(tmp_path)
    assert (source.kind, source.num_inputs, len(source.rejects)) == ("parquet", 3, 2)
    assert "neither a column" in dict(source.rejects)[f"{tmp_path}/other.parquet"]
    (tmp_path / "good.parquet").unlink()
    (tmp_path / "other.parquet").unlink()
    with pytest.raises(UserError, match="no Parquet file that can be read"):
        open_source(tmp_path)


def test_a_broken_parquet_file_may_have_a_name_that_is_not_utf8(tmp_path):
    parquet.write_table(pa.table({"bytes": [PHOTO]}), tmp_path / "good.parquet")
    with open(os.path.join(os.fsencode(tmp_path), b"bad\xff.parquet"), "wb") as file:
        file.write(b"no Parquet")
    ((uri, reason),) = open_source(tmp_path).rejects
    assert uri == f"{tmp_path}/bad\\xff.parquet" and "not a Parquet file" in reason


def test_damage_within_a_parquet_file_costs_only_its_row_group(tmp_path):
    path = tmp_path / "x.parquet"
    photos = [encoded(gradient(seed=seed)) for seed in range(30)]
    parquet.write_table(pa.table({"bytes": photos}), path, row_group_size=10, compression="zstd")
    content = bytearray(path.read_bytes())
    second = parquet.ParquetFile(path).metadata.row_group(1).column(0)
    start = second.dictionary_page_offset or second.data_page_offset
    content[start + 60 : start + 3000] = b"\xff" * 2940
    path.write_bytes(content)
    rows = rows_of(path)
    assert [row.data for row in rows if not row.error] == photos[:10] + photos[20:]
    assert [row.uri for row in rows if row.error] == [f"{path}#10"]


def test_files_of_one_folder_may_differ_in_columns_and_types(tmp_path):
    tables = [
        {"bytes": [b"0"]},
        {"bytes": [b"1"], "caption": ["text"]},
        {"bytes": [b"2"], "caption": [["a list", "of two"]], "split": ["train"]},
        {"bytes": [b"3"], "caption": [b"bytes"], "tags": [["a", None]]},
        {"bytes": [b"4"], "caption": [4]},
        {"bytes": [b"5"], "caption": pa.array(["encoded"]).dictionary_encode(), "uri": ["u"]},
        {"bytes": [b"6"], "caption": [{"en": "english", "de": "deutsch"}]},
        {"bytes": [b"7"], "caption": pa.array([None], pa.null()), "tags": [True]},
        {"bytes": [b"8"], "caption": pa.array([[("fr", "un")]], pa.map_(pa.string(), pa.string()))},
    ]
    for number, columns in enumerate(tables):
        parquet.write_table(pa.table(columns), tmp_path / f"{number}.parquet")
    rows = rows_of(tmp_path)
    assert [row.data for row in rows] == [str(number).encode() for number in range(len(tables))]
    captions = ["", "text", "a list", "bytes", "4", "encoded", "english", "", "un"]
    assert [row.text.caption for row in rows] == captions
    assert rows[2].text.detailed_caption == "of two"
    assert (rows[2].text.tags, rows[3].text.tags, rows[7].text.tags) == (("split:train",), ("a",), ())
    assert open_source(tmp_path).num_inputs == len(tables)


def test_table_rows_have_bytes_or_a_reason_for_their_absence(tmp_path):
    (tmp_path / "p.jpg").write_bytes(PHOTO)
    rows = rows_in(
        tmp_path,
        {
            "bytes": pa.array([PHOTO, None, None, None, None, None], pa.binary()),
            "uri": ["http://x/1", "p.jpg", "q.jpg", None, "", None],
        },
    )
    given, read, gone, *nothing = rows
    assert (given.uri, given.data) == ("http://x/1", PHOTO)
    assert (read.uri, read.data) == (f"{tmp_path}/p.jpg", PHOTO)
    assert "cannot be opened" in gone.error
    assert [row.uri.rpartition("#")[2] for row in nothing] == ["3", "4", "5"]
    assert all(row.error.startswith("neither column 'bytes' nor 'uri' has a value") for row in nothing)


@pytest.mark.parametrize(
    ("column", "data"),
    [
        (pa.array([{"bytes": b"x", "path": "a"}], STRUCT), b"x"),
        (pa.array([{"bytes": None, "path": "p.jpg"}], STRUCT), PHOTO),
        (pa.array([{"bytes": None, "path": None}], STRUCT), None),
        (pa.array([None], STRUCT), None),
        (pa.array([b"x"], pa.large_binary()), b"x"),
        (pa.array([b"x"], pa.binary_view()), b"x"),
        (pa.array([b"x"], pa.binary(1)), b"x"),
        (pa.array([b"x"], pa.binary()).dictionary_encode(), b"x"),
        (pa.array([list(b"xy")], pa.list_(pa.uint8())), b"xy"),
        (pa.array([[1, None]], pa.list_(pa.uint8())), None),
    ],
)
def test_bytes_are_read_from_every_type_of_column(tmp_path, column, data):
    (tmp_path / "p.jpg").write_bytes(PHOTO)
    (row,) = rows_in(tmp_path, {"image": column}, bytes_column="image")
    assert (row.data, bool(row.error)) == (data or b"", data is None)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_addresses_are_read_beside_a_column_path(tmp_path, kind):
    (tmp_path / "p.jpg").write_bytes(PHOTO)
    columns = {"uri": pa.array(["p.jpg", None, "//host/p.jpg"], kind), "path": ["zzz", "p.jpg", "p.jpg"]}
    first, second, host = rows_in(tmp_path, columns)
    assert first.data == second.data == PHOTO
    assert "'//host/p.jpg' names a host without a scheme" in host.error
    (row,) = rows_in(tmp_path, {"uri": pa.array(["p.jpg"]).dictionary_encode()})
    assert row.data == PHOTO


def test_one_value_that_is_not_unicode_costs_one_row(tmp_path):
    offsets = pa.array([0, 1, 5, 6], pa.int32()).buffers()[1]
    broken = pa.StringArray.from_buffers(3, offsets, pa.py_buffer(b"acaf\xe9c"))
    rows = rows_in(tmp_path, {"bytes": [b"0", b"1", b"2"], "caption": broken})
    assert [bool(row.error) for row in rows] == [False, True, False]
    assert [row.text.caption for row in rows] == ["a", "", "c"]
    words = rows_in(tmp_path, {"bytes": [b"0", b"1"], "caption": [b"caf\xe9", "café".encode()]})
    assert ["not Unicode" in row.error for row in words] == [True, False]


def test_rows_of_a_lance_table_are_known_by_their_numbers(tmp_path):
    batch = pa.table({"bytes": pa.array([None, b"x"], pa.binary()), "_rowid": pa.array([7, 9], pa.uint64())})
    rows = lance_rows(batch, home="t", config=IngestConfig(source="t"))
    assert [row.uri for row in rows] == ["t#7", "t#9"]


def test_image_columns_of_hugging_face_datasets_are_read(tmp_path):
    table = pa.table({"image": pa.array([{"bytes": b"x", "path": "a"}], STRUCT), "label": ["t"]})
    config = IngestConfig(source=str(tmp_path), bytes_column="image")
    assert table_columns(table.schema, config, "t") == ["image"]
    assert next(table_rows(table, [0], home="t", config=config)).data == b"x"
