"""Parquet and Lance sources."""

import pyarrow as pa
import pytest
from pictures import encoded, gradient
from pyarrow import parquet

from cluster.errors import UserError
from cluster.profile import Stage
from jobs.ingest.config import IngestConfig
from jobs.ingest.sources import listing
from jobs.ingest.sources.opening import open_source as open_checked
from jobs.ingest.sources.tables import table_columns, table_rows

DECODE = Stage(batch_size=4)


def open_source(source, **options):
    return open_checked(IngestConfig(source=str(source), **options), DECODE)


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
    given, read, gone, none = table_rows(batch, location=location, config=config)
    assert (given.uri, given.data) == ("http://x/1", photo)
    assert (read.uri, read.data) == (f"{tmp_path}/p.jpg", photo)
    assert "cannot be opened" in gone.error and "neither" in none.error


def test_image_columns_of_hugging_face_datasets_are_read(tmp_path):
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array([{"bytes": b"x", "path": "a"}], kind), "path": ["t"]})
    config = IngestConfig(source=str(tmp_path), bytes_column="image")
    assert table_columns(table.schema, config, "t") == ["image"]
    assert next(table_rows(table, location=listing.locate(str(tmp_path)), config=config)).data == b"x"
