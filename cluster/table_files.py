"""The files of queries, votes and ratings that people give: .parquet, .csv, .jsonl, and .txt for queries."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, json, parquet

from cluster.errors import UserError

# Columns that hold text whatever stands in them: Arrow takes a CSV of the queries 1984 and 2024 for numbers.
TEXTS = ("query", "image_id", "file", "file_a", "file_b", "group_a", "group_b")


def read_table(path: str, columns: Iterable[str] = ()) -> pa.Table:
    """The whole table, with the columns `TEXTS` as strings, or as lists where the file has lists.

    Raises:
        UserError: no such file, another ending, a broken file, or one that lacks any of `columns`.
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
    """Raises UserError that names every column the table lacks."""
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        have = ", ".join(table.column_names)
        raise UserError(f"{path!r} lacks the column(s) {', '.join(missing)}; it has {have}")


def query_texts(path: str) -> list[str]:
    """The lines of a .txt file, or the column `query` of a table, "" where it is null. Raises UserError."""
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
    # Told beforehand, not cast afterwards: 007 would be 7.
    told = csv.ConvertOptions(column_types=dict.fromkeys(TEXTS, pa.string()))
    return csv.read_csv(path, convert_options=told)


def _read_json(path: str) -> pa.Table:
    table = json.read_json(path)
    # Arrow takes the string "2024-01-01" for a time, unless it is told.
    times = [field.name for field in table.schema if field.name in TEXTS and pa.types.is_temporal(field.type)]
    if not times:
        return table
    told = json.ParseOptions(explicit_schema=pa.schema({name: pa.string() for name in times}))
    return json.read_json(path, parse_options=told)


def _texts_as_strings(table: pa.Table) -> pa.Table:
    schema = table.schema
    for place, field in enumerate(schema):
        if field.name in TEXTS and not pa.types.is_nested(field.type):
            schema = schema.set(place, pa.field(field.name, pa.string()))
    return table.cast(schema)


READERS = {".parquet": parquet.read_table, ".csv": _read_csv, ".jsonl": _read_json}
