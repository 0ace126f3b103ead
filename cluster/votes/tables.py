"""Users' tables of votes: which of two groups of images people prefer for a query.

Two kinds of table are read, as Parquet, CSV or JSON lines:
- HPIR form: query, group_a[], group_b[], votes_accuracy_a, votes_accuracy_b, votes_aesthetic_a,
  votes_aesthetic_b (votes_accuracy_tie, votes_aesthetic_tie optional). In a CSV a group is a JSON list, or
  names separated by spaces.
- pair tables: query, file_a, file_b, n_prefer_a, n_prefer_b (n_tie optional): groups of one image each; the
  votes are on aesthetics.
A group names its images by image_id, by a file next to the table, or by the end of the stored uri.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pyarrow import fs

from cluster.errors import UserError, shown
from cluster.files import read_file
from cluster.schemas import HPIR_COLUMNS, HPIR_TIES
from cluster.table_files import column_names, number, query, read_table, text

PAIR_COLUMNS = ("query", "file_a", "file_b", "n_prefer_a", "n_prefer_b")
CRITERIA = ("accuracy", "aesthetic")


@dataclass(frozen=True)
class Votes:
    """How many people chose group A, group B, or neither."""

    a: float
    b: float
    tie: float = 0.0


@dataclass(frozen=True)
class Row:
    """One comparison that people voted on; images are named as in the table, later by image_id."""

    query: str
    group_a: tuple[str, ...]
    group_b: tuple[str, ...]
    votes: Mapping[str, Votes]  # criterion -> votes; a pair table has no "accuracy"


def read_hpir(path: str) -> list[Row]:
    """Rows of an HPIR-form table. Raises UserError for a missing column, or a cell that cannot be used."""
    if set(PAIR_COLUMNS) <= set(column_names(path)):
        raise UserError(
            f"{shown(path)} is a pair table (file_a, file_b): pass it as --pairs instead of --hpir"
        )
    columns = {**dict.fromkeys(HPIR_COLUMNS, _count), "query": query, "group_a": _names, "group_b": _names}
    return [_hpir_row(record) for record in read_table(path, columns, dict.fromkeys(HPIR_TIES, _count))]


def _hpir_row(record: Mapping) -> Row:
    votes = {
        c: Votes(*(record.get(f"votes_{c}_{side}", 0.0) for side in ("a", "b", "tie"))) for c in CRITERIA
    }
    return Row(record["query"], record["group_a"], record["group_b"], votes)


def _count(cell: object) -> float:
    """A number of votes, 0 where there is none."""
    value = number(cell) or 0.0
    if value < 0:
        raise ValueError("is negative")
    return value


def _names(cell: object) -> tuple[str, ...]:
    """A group's names from a list cell, a JSON list or names separated by spaces."""
    names = cell
    if isinstance(cell, str):
        names = json.loads(cell) if cell.lstrip().startswith("[") else cell.split()
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError("is not a list of the images of a group")
    return tuple(names)


def _name(cell: object) -> str:
    name = text(cell)
    if not name:
        raise ValueError("names no image")
    return name


def read_pairs(path: str) -> list[Row]:
    """Rows of a pair table, one image per group. Raises UserError as `read_hpir` does."""
    columns = {**dict.fromkeys(PAIR_COLUMNS, _count), "query": query, "file_a": _name, "file_b": _name}
    return [_pair_row(record) for record in read_table(path, columns, {"n_tie": _count})]


def _pair_row(record: Mapping) -> Row:
    votes = Votes(record["n_prefer_a"], record["n_prefer_b"], record.get("n_tie", 0.0))
    return Row(record["query"], (record["file_a"],), (record["file_b"],), {"aesthetic": votes})


def match_images(names: Iterable[str], uris: Mapping[str, str], folder: Path) -> dict[str, str]:
    """name -> image_id; names that match no image, or several, are absent.

    `uris` maps image_id -> uri of all stored images. A name matches, in this order, the image_id itself; the
    image with the bytes of a file of that name under `folder`; the only stored uri that ends with the name.
    """
    matched = {name: _matched_directly(name, uris, folder) for name in dict.fromkeys(names)}
    lost = {name for name, found in matched.items() if not found}
    matched.update(_match_by_ending(lost, uris) if lost else {})
    return {name: image_id for name, image_id in matched.items() if image_id}


def _matched_directly(name: str, uris: Mapping[str, str], folder: Path) -> str:
    if name in uris:
        return name
    try:
        image_id = hashlib.sha256(read_file(fs.LocalFileSystem(), str(folder / name))).hexdigest()
    except (OSError, ValueError):  # no file, or a name that no file can have
        return ""
    return image_id if image_id in uris else ""


def _match_by_ending(names: set[str], uris: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    depths = {name.strip("/").count("/") + 1 for name in names}
    for image_id, uri in uris.items():
        parts = uri.rsplit("/")
        for depth in depths:
            found.setdefault("/".join(parts[-depth:]), set()).add(image_id)
    endings = {name: found.get(name.strip("/"), set()) for name in names}
    return {name: next(iter(ids)) for name, ids in endings.items() if len(ids) == 1}


def with_image_ids(rows: Sequence[Row], matched: Mapping[str, str]) -> list[Row]:
    """Rows by image_id; a row with an unmatched image is skipped."""
    kept = [row for row in rows if all(name in matched for name in (*row.group_a, *row.group_b))]
    return [
        replace(
            row,
            group_a=tuple(matched[name] for name in row.group_a),
            group_b=tuple(matched[name] for name in row.group_b),
        )
        for row in kept
    ]
