"""Human preference of image retrieval: a query, two groups of images, votes on accuracy and on aesthetics.

Two kinds of table are read, as Parquet, CSV or JSON lines:
- HPIR form: query, group_a[], group_b[], votes_accuracy_a, votes_accuracy_b, votes_aesthetic_a,
  votes_aesthetic_b (votes_accuracy_tie, votes_aesthetic_tie optional). In a CSV a group is a JSON list, or
  names separated by spaces.
- pair tables: query, file_a, file_b, n_prefer_a, n_prefer_b (n_tie optional): groups of one image each; the
  votes are on aesthetics.
A group names its images by image_id, by a file next to the table, or by the end of the stored uri.

A system chooses the group with the higher mean score for the query; equal means count as half an agreement.
The majority is the side with more votes. Its confidence is |a - b| / all votes, where all includes votes for
"tie"; a row with equal votes has confidence 0 and no weight. The metric is the confidence-weighted agreement
(arXiv 2406.09397, section on HPIR; the treatment of ties is our convention).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pyarrow import fs

from cluster.errors import UserError, shown
from cluster.files import read_file
from cluster.schemas import HPIR_COLUMNS, HPIR_TIES
from cluster.table_files import column_names, number, query, read_table, text

PAIR_COLUMNS = ("query", "file_a", "file_b", "n_prefer_a", "n_prefer_b")
CRITERIA = ("accuracy", "aesthetic")
NUM_BINS = 5  # of the histogram of confidences


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


def agreement(scores: np.ndarray, votes: Sequence[Votes]) -> tuple[np.ndarray, np.ndarray]:
    """Per row: 1 if the scores agree with the majority, 0 if not, 0.5 if equal; and the confidence in [0, 1].

    `scores` float [N, 2]: mean score of group A and of group B. Both results are float [N].
    """
    chosen = np.sign(scores[:, 0] - scores[:, 1])
    majority = np.sign([v.a - v.b for v in votes])
    return 0.5 + 0.5 * chosen * majority, confidence(votes)


def confidence(votes: Sequence[Votes]) -> np.ndarray:
    """The majority's margin, |a - b| / all votes, float [N] in [0, 1]; 0 without votes."""
    a, b, tie = np.array([(v.a, v.b, v.tie) for v in votes], float).reshape(-1, 3).T
    total = a + b + tie
    return np.divide(np.abs(a - b), total, out=np.zeros_like(total), where=total > 0)


def confidence_histogram(votes: Sequence[Votes]) -> dict[str, list[float]]:
    """{"edges", "shares"}: the share of rows in each of `NUM_BINS` equal bins of the confidence.

    A bin holds its lower edge; the last holds 1 as well.
    """
    # Rounded, so that a margin of 3 to 2 votes is 0.2 and not a little less.
    counts, edges = np.histogram(np.round(confidence(votes), 9), np.linspace(0, 1, NUM_BINS + 1).round(9))
    return {"edges": edges.tolist(), "shares": (counts / max(len(votes), 1)).round(6).tolist()}


def group_means(rows: Sequence[Row], score: Mapping[tuple[str, str], float]) -> np.ndarray:
    """Mean score of both groups of each row, float [N, 2]; `score` maps (query, image_id) -> score."""
    return np.array(
        [
            [
                np.mean([score[row.query, image_id] for image_id in group])
                for group in (row.group_a, row.group_b)
            ]
            for row in rows
        ]
    ).reshape(-1, 2)
