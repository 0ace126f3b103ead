"""Read users' tables, .parquet, .csv and .jsonl, and their queries, which may also be lines of a .txt.

Text stays as it was written: every cell of a CSV is a text, such as 007, NA and 1e5, until its column is
asked for as a number.
"""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from cluster.errors import UserError, shown
from cluster.text_files import (
    NO_TEXT,
    NOT_UNICODE,
    decode,
    is_unicode,
    one_line,
    open_user_file,
    read_text_file,
)

DELIMITERS = ",;\t|"
MAX_NAMES = 20

Reader = Callable[[Any], Any]
"""Turns a cell into the value of a column. Raises ValueError, which says what is wrong with the cell."""


@dataclass(frozen=True)
class TableRow:
    """A row of a table, or the reason why it cannot be used. place: "line 3" or "row 3"."""

    place: str
    values: Mapping[str, Any]
    error: str = ""


@dataclass(frozen=True)
class TableFile:
    """The names of a file's columns, and its rows with those of them that were asked for."""

    names: list[str]
    rows: list[TableRow]


def read_table(
    path: str, columns: Mapping[str, Reader], optional: Mapping[str, Reader] | None = None
) -> list[dict[str, Any]]:
    """The rows of a table, with only these columns; an optional column that the file lacks is left out.

    Raises:
        UserError: the file is missing, broken, of another type, lacks any of `columns`, or a cell is refused.
    """
    table = _open_table(path, (*columns, *(optional or {})))
    require_columns(table.names, columns, path)
    readers = dict(columns) | {name: read for name, read in (optional or {}).items() if name in table.names}
    return [_read_row(row, readers, path) for row in table.rows]


def column_names(path: str) -> list[str]:
    """The names of a table's columns. Raises UserError as `read_table` does."""
    return _open_table(path, ()).names


def query_texts(path: str) -> list[str]:
    """The lines of a .txt file, or the column `query` of a table with "" for null. Raises UserError."""
    if Path(path).suffix.lower() != ".txt":
        return [row["query"] for row in read_table(path, {"query": query})]
    # Not `splitlines`, which also splits at form feeds and other separators inside a line.
    return [one_line(line) for line in io.StringIO(read_text_file(path), newline=None)]


def query(cell: Any) -> str:
    """A query on one line, as it is labelled and searched; "" for null."""
    return one_line(text(cell))


def text(cell: Any) -> str:
    """A text as it is; numbers and dates as text, "" for null."""
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, list | tuple | dict):
        raise ValueError(f"is a {'list' if isinstance(cell, list | tuple) else 'struct'}, not a text")
    words = decode(cell) if isinstance(cell, bytes) else str(cell)
    if not is_unicode(words):
        raise ValueError(NOT_UNICODE)
    return words.lower() if isinstance(cell, bool) else words


def number(cell: Any) -> float | None:
    """A finite number; None for null and an empty field."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    try:
        value = float(cell)
    except (TypeError, ValueError, OverflowError):
        value = float("nan")
    if isinstance(cell, bool) or not abs(value) < float("inf"):
        raise ValueError("is not a finite number")
    return value


def flag(cell: Any) -> bool | None:
    """True or false, also as 1 or 0; None for null and an empty field."""
    word = text(cell).strip().lower()
    if word in ("", "true", "false", "1", "0"):
        return word in ("true", "1") if word else None
    raise ValueError("is neither true nor false")


def require_columns(names: Sequence[str], columns: Mapping[str, Any], path: str) -> None:
    """Raises UserError with the names of all columns that the table lacks."""
    if missing := [name for name in columns if name not in names]:
        raise UserError(f"{shown(path)} lacks the column(s) {', '.join(missing)}; it has {listed(names)}")


def listed(names: Sequence[str]) -> str:
    """The names of columns for a message: the first few, none of them long."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(one_line(name[:50]) for name in names[:MAX_NAMES]) + more


def _open_table(path: str, wanted: Sequence[str]) -> TableFile:
    ending = Path(path).suffix.lower()
    if ending not in READERS:
        raise UserError(f"cannot read {shown(path)} as a table: its name must end in {', '.join(READERS)}")
    with open_user_file(path) as file:
        try:
            table = READERS[ending](file, wanted)
            require_once(table.names, wanted)
            return table
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = one_line(str(error))
            raise UserError(f"{shown(path)} is not a readable {ending} table: {reason}") from None


def _read_row(row: TableRow, readers: Mapping[str, Reader], path: str) -> dict[str, Any]:
    if row.error:
        raise UserError(f"{shown(path)}, {row.place} {row.error}: correct it")
    return {name: _read_cell(row, name, read, path) for name, read in readers.items()}


def _read_cell(row: TableRow, name: str, read: Reader, path: str) -> Any:
    cell = row.values.get(name)
    try:
        return read(cell)
    except ValueError as error:
        raise UserError(f"{shown(path)}, {row.place}: {name} = {shown(cell)} {error}") from None


def read_parquet(file: Any, wanted: Sequence[str]) -> TableFile:
    """The rows of an open Parquet file. Raises OSError, ValueError or ArrowException for a broken one."""
    table = parquet.ParquetFile(file)
    names = table.schema_arrow.names
    batches = table.iter_batches(columns=[name for name in wanted if name in names])
    rows = (row for batch in batches for row in _parquet_rows(batch, wanted))
    return TableFile(names, [TableRow(f"row {i}", *row) for i, row in enumerate(rows)])


def _parquet_rows(batch: pa.RecordBatch, wanted: Sequence[str]) -> Iterator[tuple[dict[str, Any], str]]:
    # Two columns may have the same name, of which `to_pylist` keeps one.
    numbered = batch.rename_columns([str(index) for index in range(batch.num_columns)])
    for row, error in python_rows(numbered):
        values, twice = _by_name(zip(batch.schema.names, row.values(), strict=False), wanted)
        yield values, error or twice


def _by_name(cells: Iterable[tuple[str, Any]], wanted: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The cells of a row by column, and what is wrong if two of the same name contradict each other."""
    values: dict[str, Any] = {}
    error = ""
    for name, cell in cells:
        if values.get(name) in (None, ""):
            values[name] = cell
        elif name in wanted and cell not in (None, "", values[name]):
            error = f"has the column {shown(name)} more than once, with different values"
    return values, error


def python_rows(batch: pa.RecordBatch | pa.Table) -> Iterator[tuple[dict[str, Any], str]]:
    """Each row as Python values, and the reason if it has none, such as a text that is not UTF-8."""
    try:
        rows = [(row, "") for row in batch.to_pylist(maps_as_pydicts="lossy")]
    except Exception as error:  # UnicodeDecodeError, OverflowError of dates, ... of any one row
        if batch.num_rows == 1:
            yield {}, f"cannot be read: {one_line(str(error))}"
            return
        half = batch.num_rows // 2
        yield from python_rows(batch.slice(0, half))
        yield from python_rows(batch.slice(half))
    else:
        yield from rows


def read_csv(file: Any, wanted: Sequence[str]) -> TableFile:
    """The rows of an open CSV file, delimited by the most frequent of `DELIMITERS` in its header.

    A quotation mark that is never closed costs its line. Raises ValueError when there is no usable header.
    """
    csv.field_size_limit(sys.maxsize)
    content = decode(file.read())
    first = next(filter(str.strip, io.StringIO(content, newline=None)), "")
    delimiter = max(DELIMITERS, key=first.count)
    names: list[str] = []
    rows = []
    for place, fields, error in _records(content, delimiter):
        if names:
            if not error and len(fields) != len(names):
                error = f"has {len(fields)} fields, but the header has {len(names)}"
            values, twice = _by_name(zip(names, fields, strict=False), wanted)
            rows.append(TableRow(place, values, error or twice))
        elif error:
            raise ValueError(f"{place} {error}")
        else:
            names = [name.strip() for name in fields]
            if NO_TEXT.search(first) and not set(names).intersection(wanted):
                raise ValueError("its header is not text in UTF-8 or UTF-16")
    if not names:
        raise ValueError("it is empty")
    return TableFile([NO_TEXT.sub("\ufffd", name) for name in names], rows)


def _records(content: str, delimiter: str) -> Iterator[tuple[str, list[str], str]]:
    """(place, fields, error) of each record of a CSV that is not blank; of a broken one, its first line's."""
    lines = io.StringIO(content, newline="").readlines()

    def read(start: int, end: int, strict: bool) -> Any:
        chosen = map(lines.__getitem__, range(start, end))
        return csv.reader(chosen, delimiter=delimiter, skipinitialspace=True, strict=strict)

    start, reader = 0, read(0, len(lines), strict=True)
    while True:
        line, error = start + reader.line_num, ""
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as failure:
            error = f"is not CSV: {failure}"
            fields = next(read(line, line + 1, strict=False), [])
            if start + reader.line_num > line + 1:  # a quotation mark without its end took more lines
                start, reader = line + 1, read(line + 1, len(lines), strict=True)
        if fields or error:
            yield f"line {line + 1}", fields, error


def read_jsonl(file: Any, wanted: Sequence[str]) -> TableFile:
    """The rows of an open file with one JSON object on each line."""
    names: dict[str, None] = {}
    rows = []
    for number, line in enumerate(decode(file.read()).split("\n"), start=1):
        if not line.strip():
            continue
        values, error = _json_object(line, wanted)
        names |= dict.fromkeys(values)
        kept = {name: values[name] for name in wanted if name in values}
        rows.append(TableRow(f"line {number}", kept, error))
    if not names:
        raise ValueError(f"{rows[0].place} {rows[0].error or 'has no field'}" if rows else "it is empty")
    return TableFile(list(names), rows)


def _json_object(line: str, wanted: Sequence[str]) -> tuple[dict[str, Any], str]:
    errors = []  # of each object within the line; the outermost is the last

    def by_name(cells: list[tuple[str, Any]]) -> dict[str, Any]:
        values, error = _by_name(cells, wanted)
        errors.append(error)
        return values

    try:
        value = json.loads(line, object_pairs_hook=by_name)
    except RecursionError:
        return {}, "is nested too deep"
    except ValueError as error:
        return {}, f"is not JSON: {error}"
    return (value, errors[-1]) if isinstance(value, dict) else ({}, "is not a JSON object")


def require_once(names: Sequence[str], wanted: Sequence[str]) -> None:
    """Raises ValueError when any of the wanted columns occurs more than once."""
    if twice := [name for name in wanted if list(names).count(name) > 1]:
        raise ValueError(f"it has the column {shown(twice[0])} more than once")


READERS: dict[str, Callable[[Any, Sequence[str]], TableFile]] = {
    ".parquet": read_parquet,
    ".csv": read_csv,
    ".jsonl": read_jsonl,
}
