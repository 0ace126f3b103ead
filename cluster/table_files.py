"""Read users' files of queries, votes and ratings: .parquet, .csv, .jsonl, and .txt for queries."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, json, parquet

from cluster.errors import UserError

# Columns that are always text. Arrow would read the queries 1984 and 2024 of a CSV as numbers.
TEXT_COLUMNS = ("query", "image_id", "file", "file_a", "file_b", "group_a", "group_b")


def read_table(path: str, columns: Iterable[str] = ()) -> pa.Table:
    """The whole table, with `TEXT_COLUMNS` as strings, or as lists if the file has lists.

    Raises:
        UserError: the file is missing, broken, of another type, or lacks any of `columns`.
    """
    ending = Path(path).suffix.lower()
    if ending not in READERS:
        raise UserError(f"cannot read {path!r} as a table: its name must end in {', '.join(READERS)}")
    _check_exists(path)
    try:
        table = _texts_as_strings(READERS[ending](path))
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path!r} is not a readable {ending} table: {error}") from error
    require_columns(table, columns, path)
    return table


def require_columns(table: pa.Table, columns: Iterable[str], path: str) -> None:
    """Raises UserError with the names of all columns that the table lacks."""
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        have = ", ".join(table.column_names)
        raise UserError(f"{path!r} lacks the column(s) {', '.join(missing)}; it has {have}")


def query_texts(path: str) -> list[str]:
    """The lines of a .txt file, or the column `query` of a table with "" for null. Raises UserError."""
    if Path(path).suffix.lower() != ".txt":
        return [text or "" for text in read_table(path, ("query",))["query"].to_pylist()]
    _check_exists(path)
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path!r} cannot be read as UTF-8 text: {error}") from error


def _check_exists(path: str) -> None:
    if not Path(path).is_file():
        raise UserError(f"the file {path!r} does not exist: give the path of an existing one")


def _read_csv(path: str) -> pa.Table:
    # A cast after reading would be too late: 007 would have become 7.
    options = csv.ConvertOptions(column_types=dict.fromkeys(TEXT_COLUMNS, pa.string()))
    return csv.read_csv(path, convert_options=options)


def _read_json(path: str) -> pa.Table:
    table = json.read_json(path)
    # Arrow reads the string "2024-01-01" as a time, unless the schema says otherwise.
    fields = [field for field in table.schema if field.name in TEXT_COLUMNS]
    times = [field.name for field in fields if pa.types.is_temporal(field.type)]
    if not times:
        return table
    options = json.ParseOptions(explicit_schema=pa.schema({name: pa.string() for name in times}))
    return json.read_json(path, parse_options=options)


def _texts_as_strings(table: pa.Table) -> pa.Table:
    schema = table.schema
    for index, field in enumerate(schema):
        if field.name in TEXT_COLUMNS and not pa.types.is_nested(field.type):
            schema = schema.set(index, pa.field(field.name, pa.string()))
    return table.cast(schema)


READERS = {".parquet": parquet.read_table, ".csv": _read_csv, ".jsonl": _read_json}
