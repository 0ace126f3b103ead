"""Reads a folder of rated photographs and splits it by rater group. Plain numpy: no model, no Ray.

A folder holds
- `metadata.csv`: file (relative to the folder), subject, category, rater_group, beauty_mean;
- `pairs.csv`: query, scope (`same_category` or `same_subject`), file_a, file_b, n_prefer_a, n_prefer_b,
  n_tie, rater_group.
Each photograph was rated by one group of people, and both photographs of a pair by the same group. A method
that is fitted on one group has therefore seen neither the photographs nor the raters of another.

Shapes: N photographs, P pairs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.errors import UserError
from cluster.table_files import Reader, number, read_table, text
from jobs.evaluate.hpir import Votes

METADATA_COLUMNS = {
    **dict.fromkeys(("file", "subject", "category", "rater_group"), text),
    "beauty_mean": number,
}
PAIRS_COLUMNS = {
    **dict.fromkeys(("query", "file_a", "file_b", "scope", "rater_group"), text),
    **dict.fromkeys(("n_prefer_a", "n_prefer_b", "n_tie"), number),
}
SCOPES = ("same_category", "same_subject")


@dataclass(frozen=True, eq=False)
class RatedPhotographs:
    """Photographs with people's ratings, and their votes on pairs of them."""

    folder: Path
    files: tuple[str, ...]  # [N], relative to the folder
    subjects: np.ndarray  # str [N]
    categories: np.ndarray  # str [N]
    groups: np.ndarray  # str [N], the rater group
    ratings: np.ndarray  # float [N], mean beauty, higher is more beautiful
    pairs: np.ndarray  # int [P, 2], rows of photographs A and B
    queries: np.ndarray  # str [P]
    scopes: np.ndarray  # str [P], each one of `SCOPES`
    votes: tuple[Votes, ...]  # [P]

    @property
    def pair_groups(self) -> np.ndarray:
        """The rater group of each pair, str [P]."""
        return self.groups[self.pairs[:, 0]]


@dataclass(frozen=True, eq=False)
class Fold:
    """Rows of the photographs to train on, and of the held-out rater group. The two are disjoint."""

    name: str  # the rater group that is held out
    train: np.ndarray
    held_out: np.ndarray


def read_photographs(folder: str) -> RatedPhotographs:
    """Read the tables of a folder; no image is opened.

    Raises UserError for a missing file or column, an unknown photograph or scope in pairs.csv, a pair across
    rater groups, or fewer than two rater groups.
    """
    base = Path(folder)
    photographs = _columns(base / "metadata.csv", METADATA_COLUMNS)
    pairs = _columns(base / "pairs.csv", PAIRS_COLUMNS)
    _check_names(photographs, pairs)
    row_of_file = {name: row for row, name in enumerate(photographs["file"])}
    counts = zip(pairs["n_prefer_a"], pairs["n_prefer_b"], pairs["n_tie"], strict=True)
    rated = RatedPhotographs(
        folder=base,
        files=tuple(photographs["file"]),
        subjects=np.array(photographs["subject"]),
        categories=np.array(photographs["category"]),
        groups=np.array(photographs["rater_group"]),
        ratings=np.array(photographs["beauty_mean"], float),
        pairs=np.array([[row_of_file[name] for name in pairs[side]] for side in ("file_a", "file_b")]).T,
        queries=np.array(pairs["query"]),
        scopes=np.array(pairs["scope"]),
        votes=tuple(Votes(*count) for count in counts),
    )
    _check_groups(rated, np.array(pairs["rater_group"]))
    return rated


def _columns(path: Path, columns: Mapping[str, Reader]) -> dict[str, list]:
    rows = read_table(str(path), columns)
    return {name: [row[name] for row in rows] for name in columns}


def _check_names(photographs: dict[str, list], pairs: dict[str, list]) -> None:
    if unknown_files := sorted({*pairs["file_a"], *pairs["file_b"]} - set(photographs["file"])):
        raise UserError(f"pairs.csv names {unknown_files[0]!r}, which metadata.csv does not list.")
    if unknown_scopes := sorted(set(pairs["scope"]) - set(SCOPES)):
        raise UserError(f"pairs.csv has the scope {unknown_scopes[0]!r}; allowed: {', '.join(SCOPES)}.")


def _check_groups(rated: RatedPhotographs, pair_groups: np.ndarray) -> None:
    if len(set(rated.groups.tolist())) < 2:
        raise UserError("metadata.csv has only one rater_group: at least two are needed, to hold one out.")
    crossing = np.flatnonzero((rated.groups[rated.pairs] != pair_groups[:, None]).any(axis=1))
    if len(crossing):
        a, b = (rated.files[row] for row in rated.pairs[crossing[0]])
        raise UserError(
            f"pairs.csv pairs {a!r} with {b!r}: both photographs must have the rater_group of the pair."
        )


def check_scopes(rated: RatedPhotographs) -> None:
    """Raise UserError for a scope without a pair on which most people prefer the same photograph."""
    decided = np.array([vote.a != vote.b for vote in rated.votes], bool)
    for scope in SCOPES:
        if not decided[rated.scopes == scope].any():
            raise UserError(f"pairs.csv has no pair of the scope {scope!r} with a majority: add some.")


def folds(rated: RatedPhotographs) -> Iterator[Fold]:
    """One fold for each rater group, in alphabetical order: that group is held out, the others train."""
    for name in sorted(set(rated.groups.tolist())):
        held_out = rated.groups == name
        yield Fold(name, np.flatnonzero(~held_out), np.flatnonzero(held_out))
