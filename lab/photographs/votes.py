"""People's votes on photographs, and how often a score sides with them. Plain numpy: no model, no Ray.

A folder of rated photographs holds
- `metadata.csv`: file (below the folder), subject, category, rater_group, beauty_mean;
- `pairs.csv`: query, scope (`same_category` or `same_subject`), file_a, file_b, n_prefer_a, n_prefer_b,
  n_tie, rater_group.
Each photograph belongs to one rater group, and so do both photographs of a pair: who learns from one group
has seen neither the photographs nor the people of another.

Shapes: N photographs, P pairs, S repetitions with different seeds, R bootstrap resamples.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.errors import UserError
from cluster.table_files import read_table
from jobs.evaluate import hpir
from jobs.evaluate.figures.metrics import resample_counts
from jobs.evaluate.hpir import Votes

METADATA_COLUMNS = ("file", "subject", "category", "rater_group", "beauty_mean")
PAIRS_COLUMNS = (*hpir.PAIR_COLUMNS, "n_tie", "scope", "rater_group")
SCOPES = ("same_category", "same_subject")


@dataclass(frozen=True, eq=False)
class Panel:
    """Photographs, people's ratings of them, and their votes on pairs."""

    folder: Path
    files: tuple[str, ...]  # [N], below the folder
    subjects: np.ndarray  # str [N]
    categories: np.ndarray  # str [N]
    groups: np.ndarray  # str [N], the rater group
    ratings: np.ndarray  # float [N], mean beauty, higher is more beautiful
    sides: np.ndarray  # int [P, 2], photographs A and B of each pair
    queries: np.ndarray  # str [P]
    scopes: np.ndarray  # str [P], of `SCOPES`
    votes: tuple[Votes, ...]  # [P]

    @property
    def pair_groups(self) -> np.ndarray:
        """The rater group of each pair, str [P]."""
        return self.groups[self.sides[:, 0]]


@dataclass(frozen=True, eq=False)
class Fold:
    """Learn from the photographs `learn`, be measured on `held`; int rows of the panel, never shared."""

    name: str  # the rater group that is held out
    learn: np.ndarray
    held: np.ndarray


def read_panel(folder: str) -> Panel:
    """The tables of a folder; no image is opened.

    Raises UserError for a missing file or column, a pair of an unknown photograph, a pair whose photographs
    are not both of its own rater group, an unknown scope, or fewer than two rater groups.
    """
    base = Path(folder)
    photographs, pairs = (
        _columns(str(base / name), columns)
        for name, columns in (("metadata.csv", METADATA_COLUMNS), ("pairs.csv", PAIRS_COLUMNS))
    )
    files = photographs["file"]
    row = {name: i for i, name in enumerate(files)}
    unknown = sorted({*pairs["file_a"], *pairs["file_b"]} - row.keys())
    if unknown:
        raise UserError(f"pairs.csv names {unknown[0]!r}, which metadata.csv does not list")
    if strange := sorted(set(pairs["scope"]) - set(SCOPES)):
        raise UserError(f"pairs.csv has the scope {strange[0]!r}; known: {', '.join(SCOPES)}")
    votes = zip(pairs["n_prefer_a"], pairs["n_prefer_b"], pairs["n_tie"], strict=True)
    panel = Panel(
        folder=base,
        files=tuple(files),
        subjects=np.array(photographs["subject"]),
        categories=np.array(photographs["category"]),
        groups=np.array(photographs["rater_group"]),
        ratings=np.array(photographs["beauty_mean"], float),
        sides=np.array(
            [[row[pairs[side][i]] for side in ("file_a", "file_b")] for i in range(len(pairs["scope"]))]
        ),
        queries=np.array(pairs["query"]),
        scopes=np.array(pairs["scope"]),
        votes=tuple(Votes(*counts) for counts in votes),
    )
    _check_groups(panel, np.array(pairs["rater_group"]))
    return panel


def _columns(path: str, columns: Sequence[str]) -> dict[str, list]:
    return read_table(path, columns).select(list(columns)).to_pydict()


def _check_groups(panel: Panel, stated: np.ndarray) -> None:
    if len(set(panel.groups.tolist())) < 2:
        raise UserError("metadata.csv has one rater_group: there is no other to be measured on")
    crossing = np.flatnonzero((panel.groups[panel.sides] != stated[:, None]).any(axis=1))
    if len(crossing):
        a, b = (panel.files[side] for side in panel.sides[crossing[0]])
        raise UserError(f"pairs.csv pairs {a!r} with {b!r}: both must be of the pair's own rater_group")


def folds(panel: Panel) -> Iterator[Fold]:
    """Each rater group is held out once, in alphabetical order; all others are learned from."""
    for name in sorted(set(panel.groups.tolist())):
        held = panel.groups == name
        yield Fold(name, np.flatnonzero(~held), np.flatnonzero(held))


def subject_scores(panel: Panel, fold: Fold) -> np.ndarray:
    """Mean rating of the photographs learned from that have the same subject, drawn to their category's; [N].

    The category's mean weighs as much as two photographs. It knows a photograph's name, which no method
    sees: what it gains is what recognising the subject would be worth.
    """
    scores = np.empty(len(panel.files))
    for row in range(len(scores)):
        same, near = (
            panel.ratings[fold.learn][labels[fold.learn] == labels[row]]
            for labels in (panel.subjects, panel.categories)
        )
        prior = near.mean() if len(near) else panel.ratings[fold.learn].mean()
        scores[row] = (same.sum() + 2 * prior) / (len(same) + 2)
    return scores


def held_out(panel: Panel, method: Callable[[Fold], np.ndarray]) -> np.ndarray:
    """Scores of both sides of every pair by what learned from the other groups, float [P, 2].

    `method` gives a score for every photograph, [N], or for both sides of every pair, [P, 2].
    """
    scores = np.empty((len(panel.votes), 2))
    for fold in folds(panel):
        mine, found = panel.pair_groups == fold.name, method(fold)
        scores[mine] = (found if found.ndim == 2 else found[panel.sides])[mine]
    return scores


def one_against_others(votes: Sequence[Votes]) -> np.ndarray:
    """Probability that a rater who prefers one side agrees with the majority of the others, float [P].

    With a votes for A and b for B: a rater of A (share a / (a + b)) faces a - 1 against b, one of B faces a
    against b - 1; an equal rest counts one half. 0.5 where nobody prefers a side.
    """
    a, b = np.array([(v.a, v.b) for v in votes], float).reshape(-1, 2).T
    agree = a * (1 + np.sign(a - 1 - b)) / 2 + b * (1 + np.sign(b - 1 - a)) / 2
    return np.divide(agree, a + b, out=np.full_like(a, 0.5), where=a + b > 0)


def agreements(panel: Panel, scores: np.ndarray) -> np.ndarray:
    """Mean over repetitions of 1 sides with the majority, 0 does not, 0.5 equal scores; float [P].

    `scores` float [S, P, 2]: of photograph A and of B, higher is preferred.
    """
    return np.mean([hpir.agreement(each, panel.votes)[0] for each in scores], axis=0)


def figure(panel: Panel, values: np.ndarray, scope: str, *, num_resamples: int, seed: int) -> dict:
    """Mean of `values`, float [P], over the pairs of a scope that have a majority, with its interval.

    Returns {"value", "ci95", "num_pairs", "folds": {held group: value}, "weighted": {"value", "ci95"}}:
    `weighted` weighs a pair by its confidence |a - b| / (a + b + ties), as the HPIR metric does. The interval
    is a percentile bootstrap over photographs, within their groups: pairs share photographs, so pairs are not
    independent, and there are too few queries to draw from (a category is one query). A pair counts as often
    as both its photographs were drawn.
    """
    _, confidence = hpir.agreement(np.zeros((len(panel.votes), 2)), panel.votes)
    kept = (panel.scopes == scope) & (confidence > 0)
    drawn = _drawn_pairs(panel, kept, num_resamples=num_resamples, seed=seed)
    value, ci95 = _mean(values[kept], np.ones(kept.sum()), drawn)
    of_fold = {
        fold.name: _mean(values[mine], np.ones(mine.sum()), None)[0]
        for fold in folds(panel)
        if (mine := kept & (panel.pair_groups == fold.name)).any()
    }
    weighted = dict(zip(("value", "ci95"), _mean(values[kept], confidence[kept], drawn), strict=True))
    return {
        "value": value,
        "ci95": ci95,
        "num_pairs": int(kept.sum()),
        "folds": of_fold,
        "weighted": weighted,
    }


def _drawn_pairs(panel: Panel, kept: np.ndarray, *, num_resamples: int, seed: int) -> np.ndarray:
    """How often each kept pair is drawn in each resample, float [R, kept]."""
    counts = np.zeros((num_resamples, len(panel.files)))
    for number, fold in enumerate(folds(panel)):
        counts[:, fold.held] = resample_counts(
            len(fold.held), num_resamples=num_resamples, seed=seed + number
        )
    return counts[:, panel.sides[kept, 0]] * counts[:, panel.sides[kept, 1]]


def _mean(
    values: np.ndarray, weights: np.ndarray, drawn: np.ndarray | None
) -> tuple[float | None, list[float] | None]:
    """Weighted mean and its 95 % interval, rounded to 4 digits; None where there is nothing to average."""
    if not weights.sum():
        return None, None
    value = round(float(values @ weights / weights.sum()), 4)
    if drawn is None:
        return value, None
    total = drawn @ weights
    means = (drawn @ (values * weights))[total > 0] / total[total > 0]
    return value, [round(float(end), 4) for end in np.percentile(means, [2.5, 97.5])]
