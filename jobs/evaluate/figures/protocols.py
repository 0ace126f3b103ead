"""The judge's protocols for two lists of results, each with and without order consistency.

A protocol gives each query a margin for either order of presentation: above 0 the challenger's results are
better, below 0 the baseline's. Lists are compared rank by rank (first with first, ...) and the margins
averaged, since a judge that sees two images at a time cannot be shown ten.

- `ranker`: which of the two images is better; the margin is P(challenger's is better) - 0.5.
- `scorer`: each image rated alone; the margin is the difference of beauty, which counts only where accurate.
- `cp_scorer`: the same ratings, with both images shown.

Source: arXiv 2406.09397, the LMM judge's prompts and its comparison of them with people. Its third question,
the diversity of a list, needs the whole list in one image and is measured by the Vendi score instead.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from jobs.evaluate.config import TOP_K
from jobs.evaluate.figures.metrics import by_query, estimate
from jobs.evaluate.figures.winrate import TIE, MatchedPair, outcomes
from jobs.evaluate.language_models import Judgements

QueryPair = tuple[str, str, str]  # query, the challenger's image, the baseline's image


def margins(
    protocol: str,
    queries: Sequence[str],
    pairs: Sequence[MatchedPair],
    judgements: Judgements,
    threshold: float,
) -> np.ndarray:
    """Mean margin of each query over its `TOP_K` ranks, float [Q, 2]: challenger shown first, and second.

    A rank whose images are the same, or that the judge did not answer in both orders, counts 0.

    Args:
        pairs: the rank-matched pairs of different images.
        threshold: accuracy, 1 to 5, below which beauty counts 0.
    """
    margin_of = {"ranker": _ranked, "scorer": _rated_alone, "cp_scorer": _rated_together}[protocol]
    found = np.zeros((len(queries), 2))
    for query, _, a, b in pairs:
        both = margin_of((queries[query], a, b), judgements, threshold)
        if not np.isnan(both).any():  # one order alone would decide the query
            found[query] += both / TOP_K
    return found


def _ranked(pair: QueryPair, judgements: Judgements, threshold: float) -> np.ndarray:
    return np.array(judgements.overall[pair]) - 0.5


def _rated_alone(pair: QueryPair, judgements: Judgements, threshold: float) -> np.ndarray:
    query, *images = pair
    accuracy = np.array([judgements.accuracy[query, image] for image in images])
    beauty = np.array([judgements.aesthetics[image] for image in images])
    a, b = _gated(accuracy, beauty, threshold)
    return np.array([a - b, a - b])


def _rated_together(pair: QueryPair, judgements: Judgements, threshold: float) -> np.ndarray:
    accuracy, beauty = (judgements.together[criterion, *pair] for criterion in ("accuracy", "aesthetics"))
    gated = _gated(accuracy, beauty, threshold)
    return gated[:, 0] - gated[:, 1]


def _gated(accuracy: np.ndarray, beauty: np.ndarray, threshold: float) -> np.ndarray:
    """Beauty scaled from [1, 5] to [0, 1] where accurate, else 0; NaN where either is unknown."""
    return np.where(accuracy >= threshold, (beauty - 1) / 4, 0.0 * (accuracy + beauty))


def table(
    queries: Sequence[str], margins_of: Mapping[str, np.ndarray], *, num_resamples: int, seed: int
) -> list[dict]:
    """The table of protocols: one row for each, with and without order consistency.

    Args:
        queries: the query of each comparison, N; the bootstrap draws queries, with all their comparisons.
        margins_of: protocol -> float [N, 2], margins of lists that differ.

    Returns:
        {"protocol", "order_consistency", "win_rate", "decided"}: `decided` is the share of comparisons that
        do not end in a tie.
    """
    sampling = {"num_resamples": num_resamples, "seed": seed}
    return [
        {
            "protocol": protocol,
            "order_consistency": consistent,
            "win_rate": share(queries, (judged + 1) / 2, **sampling),
            "decided": share(queries, (judged != TIE).astype(float), **sampling),
        }
        for protocol, margin in margins_of.items()
        for consistent in (True, False)
        for judged in [outcomes(margin, consistent=consistent, seed=seed)]
    ]


def share(
    queries: Sequence[str],
    values: np.ndarray,
    weights: np.ndarray | None = None,
    /,
    *,
    num_resamples: int,
    seed: int,
) -> dict:
    """Weighted mean of values, float [N], with its interval over queries; the weights are 1 if None."""
    weights = np.ones(len(queries)) if weights is None else weights
    return estimate(*by_query(queries, values, weights), num_resamples=num_resamples, seed=seed).as_dict()
