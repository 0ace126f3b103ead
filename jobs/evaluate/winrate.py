"""System-level win rate: two rows of results side by side, judged twice with the order swapped.

The two top-k rows of a query are compared by their rank-matched pairs (first with first, second with
second); a row's preference is the mean over its pairs, once for each order of presentation. Order
consistency: a row is won or lost only if both orders say so, anything else is a tie (arXiv 2406.09397,
`ranker` with order consistency). value = (wins + ties / 2) / all.
"""

from collections.abc import Sequence

import numpy as np

from jobs.evaluate.metrics import estimate

WIN, TIE, LOSS = 1, 0, -1


def pairs_to_judge(
    row_a: Sequence[Sequence[str]], row_b: Sequence[Sequence[str]]
) -> list[tuple[int, int, str, str]]:
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


def row_preferences(
    pairs: Sequence[tuple[int, int, str, str]], p: np.ndarray, *, num_queries: int, num_ranks: int
) -> np.ndarray:
    """Mean preference for row A of each query, float [Q]; `p` float [len(pairs)] in [0, 1].

    Pairs that were not asked count 0.5; so does a pair the judge could not answer (NaN).
    """
    grid = np.full((num_queries, num_ranks), 0.5)
    for (query, rank, _, _), value in zip(pairs, p, strict=True):
        grid[query, rank] = 0.5 if np.isnan(value) else value
    return grid.mean(axis=1)


def row_outcomes(p_ab: np.ndarray, p_ba: np.ndarray) -> np.ndarray:
    """WIN, TIE or LOSS of row A, int [Q]: both are P(A better), shown first (`p_ab`) and second (`p_ba`)."""
    first, second = np.sign(p_ab - 0.5), np.sign(p_ba - 0.5)
    return np.where(first == second, first, TIE).astype(int)


def summary(outcomes: np.ndarray, *, num_resamples: int, seed: int) -> dict:
    """{"value", "ci95", "num_queries", "wins", "ties", "losses"} of row A over queries."""
    figure = estimate((np.asarray(outcomes) + 1) / 2, num_resamples=num_resamples, seed=seed).as_dict()
    counted = {"wins": WIN, "ties": TIE, "losses": LOSS}
    return figure | {name: int((outcomes == outcome).sum()) for name, outcome in counted.items()}


def order_consistency(p_ab: np.ndarray, p_ba: np.ndarray, differs: np.ndarray) -> float | None:
    """Share of the rows that differ for which both orders choose the same side; None if no row differs."""
    if not differs.any():
        return None
    return round(float((np.sign(p_ab - 0.5) == np.sign(p_ba - 0.5))[differs].mean()), 6)
