"""The table beside a folder of images that says what each file shows."""

from dataclasses import dataclass

import pyarrow as pa
from pyarrow import csv, fs, parquet
from pyarrow import json as arrow_json

from cluster.errors import UserError
from jobs.ingest.listing import METADATA_NAMES, Place
from jobs.ingest.lookup import Lookup
from jobs.ingest.readers import extension
from jobs.ingest.words import Columns, Words, words_of

KEY_COLUMNS = ("file_name", "file")
READERS = {"parquet": parquet.read_table, "csv": csv.read_csv, "jsonl": arrow_json.read_json}


@dataclass(frozen=True)
class Metadata:
    """Words by file, found by the file's path relative to its folder."""

    lookup: Lookup
    words: pa.Table

    def words_at(self, file: str) -> Words:
        """What the table says about a file; empty when it says nothing."""
        row = self.lookup.row(file)
        if row < 0:
            return Words()
        values = self.words.slice(row, 1).to_pylist()[0]
        return Words(values["caption"], values["detailed_caption"], tuple(values["tags"]))


def find_metadata(place: Place, paths: set[str]) -> str:
    """The path of the folder's own metadata table, "" when it has none."""
    candidates = (f"{place.path}/{name}" for name in METADATA_NAMES)
    return next((path for path in candidates if path in paths), "")


def read_metadata(filesystem: fs.FileSystem, path: str, columns: Columns) -> Metadata:
    """Read and check a metadata table. Raises UserError for one that is broken or names no files."""
    if extension(path) not in READERS:
        raise UserError(f"metadata table '{path}' has an unknown form; give one of {', '.join(READERS)}.")
    try:
        with filesystem.open_input_file(path) as file:
            table = READERS[extension(path)](file)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"metadata table '{path}' cannot be read: {error}") from error
    key = next((name for name in KEY_COLUMNS if name in table.column_names), "")
    if not key:
        raise UserError(
            f"metadata table '{path}' has no column '{KEY_COLUMNS[0]}' or '{KEY_COLUMNS[1]}'; it has "
            f"{', '.join(table.column_names)}."
        )
    return _metadata(table, key, columns)


def _metadata(table: pa.Table, key: str, columns: Columns) -> Metadata:
    wanted = [name for name in dict.fromkeys((key, *columns.wanted())) if name in table.column_names]
    words: dict[str, Words] = {}
    for row in table.select(wanted).to_pylist():
        if row[key]:
            words.setdefault(str(row[key]).removeprefix("./"), words_of(row, columns))
    columns_of = {
        "caption": [entry.caption for entry in words.values()],
        "detailed_caption": [entry.detailed_caption for entry in words.values()],
        "tags": pa.array([list(entry.tags) for entry in words.values()], pa.list_(pa.string())),
    }
    return Metadata(Lookup(pa.array(list(words), pa.string())), pa.table(columns_of))
