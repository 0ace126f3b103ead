"""System-level win rate: two rows of results side by side, judged twice with the order swapped.

The two top-k rows of a query are compared by their rank-matched pairs (first with first, second with
second); a row's margin is the mean over its pairs (`protocols.py`), once for each order of presentation.
Order consistency: a row is won or lost only if both orders say so, anything else is a tie (arXiv 2406.09397,
`ranker` with order consistency). value = (wins + ties / 2) / all.
"""

from collections.abc import Sequence

import numpy as np

from jobs.evaluate.figures.metrics import estimate

WIN, TIE, LOSS = 1, 0, -1
Duel = tuple[int, int, str, str]  # query index, rank, image of row A, image of row B


def pairs_to_judge(row_a: Sequence[Sequence[str]], row_b: Sequence[Sequence[str]]) -> list[Duel]:
    """(query index, rank, image of A, image of B) of every rank-matched pair that differs.

    A pair of one and the same image needs no judge: its preference is 0.5 in both orders. Ranks that only one
    of the rows has (a small gallery) are not compared.
    """
    return [
        (query, rank, a, b)
        for query, (ids_a, ids_b) in enumerate(zip(row_a, row_b, strict=True))
        for rank, (a, b) in enumerate(zip(ids_a, ids_b, strict=False))
        if a != b
    ]


def outcomes(margins: np.ndarray, *, consistent: bool = True, seed: int = 0) -> np.ndarray:
    """WIN, TIE or LOSS of row A, int [Q]; `margins` float [Q, 2], above 0 where A is better: A shown first,
    and second.

    consistent: both orders have to name the same side, anything else is a tie. Otherwise one order is asked,
    and a coin of `seed` says which.
    """
    signs = np.sign(np.round(margins, 9)).astype(int)
    if consistent:
        return np.where(signs[:, 0] == signs[:, 1], signs[:, 0], TIE)
    coin = np.random.default_rng(seed).integers(2, size=len(signs))
    return signs[np.arange(len(signs)), coin]


def summary(outcomes: np.ndarray, *, num_resamples: int, seed: int) -> dict:
    """{"value", "ci95", "num_queries", "wins", "ties", "losses"} of row A over queries."""
    figure = estimate((np.asarray(outcomes) + 1) / 2, num_resamples=num_resamples, seed=seed).as_dict()
    counted = {"wins": WIN, "ties": TIE, "losses": LOSS}
    return figure | {name: int((outcomes == outcome).sum()) for name, outcome in counted.items()}


def order_consistency(margins: np.ndarray, differs: np.ndarray) -> float | None:
    """Share of the rows that differ for which both orders choose the same side; None if no row differs."""
    if not differs.any():
        return None
    first, second = np.sign(np.round(margins, 9)).T
    return round(float((first == second)[differs].mean()), 6)
