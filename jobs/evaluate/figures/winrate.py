"""System-level win rate: two lists of results side by side, judged twice with the order swapped.

The top-k results of a query are compared in rank-matched pairs (first with first, second with second). The
margin of a query is the mean over its pairs (`protocols.py`), once for each order of presentation. Order
consistency: a query is won or lost only if both orders agree, anything else is a tie (arXiv 2406.09397,
`ranker` with order consistency). value = (wins + ties / 2) / all.
"""

from collections.abc import Sequence

import numpy as np

from jobs.evaluate.figures.metrics import estimate

WIN, TIE, LOSS = 1, 0, -1
OUTCOMES = {"wins": WIN, "ties": TIE, "losses": LOSS}
MatchedPair = tuple[int, int, str, str]  # query index, rank, image of list A, image of list B


def pairs_to_judge(lists_a: Sequence[Sequence[str]], lists_b: Sequence[Sequence[str]]) -> list[MatchedPair]:
    """The rank-matched pairs of two different images.

    A pair of the same image needs no judge: its preference is 0.5 in both orders. Ranks that only one of the
    lists has (in a small gallery) are not compared.
    """
    return [
        (query, rank, a, b)
        for query, (ids_a, ids_b) in enumerate(zip(lists_a, lists_b, strict=True))
        for rank, (a, b) in enumerate(zip(ids_a, ids_b, strict=False))
        if a != b
    ]


def outcomes(margins: np.ndarray, *, consistent: bool = True, seed: int = 0) -> np.ndarray:
    """WIN, TIE or LOSS of A for each query, int [Q].

    Args:
        margins: float [Q, 2], above 0 where A is better, with A shown first and with A shown second.
        consistent: both orders have to favour the same side, anything else is a tie. Otherwise only one order
            counts, chosen for each query by a coin of `seed`.
    """
    signs = np.sign(np.round(margins, 9)).astype(int)
    if consistent:
        return np.where(signs[:, 0] == signs[:, 1], signs[:, 0], TIE)
    coin = np.random.default_rng(seed).integers(2, size=len(signs))
    return signs[np.arange(len(signs)), coin]


def counts(outcomes: np.ndarray) -> dict[str, int]:
    """{"wins", "ties", "losses"} of outcomes, int [Q]."""
    return {name: int((outcomes == outcome).sum()) for name, outcome in OUTCOMES.items()}


def summary(outcomes: np.ndarray, *, num_resamples: int, seed: int) -> dict:
    """{"value", "ci95", "num_queries", "wins", "ties", "losses"} of outcomes, int [Q]."""
    figure = estimate((np.asarray(outcomes) + 1) / 2, num_resamples=num_resamples, seed=seed)
    return figure.as_dict() | counts(outcomes)


def order_consistency(margins: np.ndarray, differs: np.ndarray) -> float | None:
    """Share of the queries with different results on which both orders favour the same side; None if there
    is no such query.
    """
    if not differs.any():
        return None
    first, second = np.sign(np.round(margins, 9)).T
    return round(float((first == second)[differs].mean()), 6)
