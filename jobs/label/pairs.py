"""The partial order of one query's images, and the preferences that follow from it (step 4 of the method).

The list ordered by semantic score is thinned to every `stride`-th image and cut into `rows` of `columns`
images; each row is ordered by aesthetics. A cell (i, j) is preferred to (k, l) when i <= k, j <= l and they
differ: better on one axis and not worse on the other. u x v cells give u(u+1)/2 * v(v+1)/2 - uv pairs: 200
for 5 x 5.

Pure functions on arrays; images are named by their position in the input list.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Cell = tuple[int, int]
Scores = Sequence[float] | np.ndarray  # indexed by position


@dataclass(frozen=True)
class Grid:
    """The shape of the partial order: numbers of rows (u) and columns (v), and the stride of the thinning."""

    rows: int
    columns: int
    stride: int

    @property
    def num_images(self) -> int:
        """Images of a full grid."""
        return self.rows * self.columns


@dataclass(frozen=True)
class Preference:
    """One ordered pair of a query's images.

    winner, loser: positions in the query's list. aesthetic_gap, semantic_gap: score of the winner minus score
    of the loser. winner_cell, loser_cell: (row, column). consistent: False when the judge contradicted itself
    in the other order.
    """

    winner: int
    loser: int
    aesthetic_gap: float
    semantic_gap: float
    winner_cell: Cell
    loser_cell: Cell
    consistent: bool


def thin(semantic_scores: Scores, grid: Grid) -> list[int]:
    """Positions of every `stride`-th image by descending semantic score; equal scores keep the list's order.

    With too few images for the grid at that stride, a smaller stride is used.
    """
    order = np.argsort(-np.asarray(semantic_scores, dtype=np.float64), kind="stable")
    stride = max(1, min(grid.stride, (len(order) - 1) // max(1, grid.num_images - 1)))
    return [int(position) for position in order[::stride][: grid.num_images]]


def cut(num_images: int, columns: int) -> list[list[int]]:
    """Rows of `columns` positions, 0 to num_images - 1; the last row may be shorter."""
    return [list(range(start, min(start + columns, num_images))) for start in range(0, num_images, columns)]


def order_rows(rows: Sequence[Sequence[int]], aesthetic_scores: Scores) -> list[list[int]]:
    """Each row by descending aesthetic score; equal scores keep their semantic order."""
    return [sorted(row, key=lambda position: -aesthetic_scores[position]) for row in rows]


def dominance(shape: Sequence[int]) -> list[tuple[Cell, Cell]]:
    """(winner, loser) cells for rows of length `shape[i]`; the winner is not lower on either axis."""
    cells = [(i, j) for i, length in enumerate(shape) for j in range(length)]
    return [(a, b) for a in cells for b in cells if a != b and a[0] <= b[0] and a[1] <= b[1]]


def log_odds(p: float) -> float:
    """A probability as a gap in logits; NaN stays NaN."""
    p = min(max(p, 1e-4), 1.0 - 1e-4)
    return float(np.log(p / (1.0 - p)))


def preferences(
    rows: Sequence[Sequence[int]],
    semantic_scores: Scores,
    aesthetic_scores: Scores,
    *,
    judged: Mapping[tuple[int, int], tuple[float, bool]] | None = None,
) -> list[Preference]:
    """Every dominance pair of the rows of `order_rows`.

    Args:
        rows: positions; semantic_scores and aesthetic_scores are indexed by them.
        judged: (winner, loser) -> (p, consistent) where the judge compared the aesthetics of the two: the
            log-odds of p replace the gap of the aesthetic scores, which then are in log-odds too. A pair
            whose p is NaN (no answer) is skipped.
    """
    judged = judged or {}
    result = []
    for winner_cell, loser_cell in dominance([len(row) for row in rows]):
        winner, loser = (rows[i][j] for i, j in (winner_cell, loser_cell))
        p_beauty, consistent = judged.get((winner, loser), (None, True))
        if p_beauty is None:
            aesthetic_gap = float(aesthetic_scores[winner] - aesthetic_scores[loser])
        else:
            aesthetic_gap = log_odds(p_beauty)
        if np.isnan(aesthetic_gap):
            continue
        semantic_gap = float(semantic_scores[winner] - semantic_scores[loser])
        result.append(
            Preference(winner, loser, aesthetic_gap, semantic_gap, winner_cell, loser_cell, consistent)
        )
    return result


def strengths(num_images: int, judged: Mapping[tuple[int, int], tuple[float, bool]]) -> np.ndarray:
    """How beautiful each image is beside those it was compared with, in log-odds, float64 [N].

    The mean log-odds of winning, counting the image itself as even: the least-squares fit of Bradley-Terry
    where every two images of a row were compared. 0 for an image without comparisons.
    """
    won: list[list[float]] = [[0.0] for _ in range(num_images)]
    for (image, _), (p, _) in judged.items():
        if not np.isnan(p):
            won[image].append(log_odds(p))
    return np.array([np.mean(logits) for logits in won])
