"""The judge's protocols for two lists of results, each with and without order consistency.

A protocol gives each query a margin for either order of presentation: above 0 the challenger's results are
better, below 0 the baseline's.

- `ranker`: which of two images is better; the margin is P(challenger's is better) - 0.5.
- `scorer`: each image rated alone; the margin is the difference of beauty, which counts only where accurate.
- `cp_scorer`: the same ratings, with both images shown.
- `sheet`: which of two rows of results is better, both in one image, asked for accuracy, aesthetics and
  diversity; the margin is the mean over the three of P(challenger's is better) - 0.5.

The first three compare the lists rank by rank (first with first, ...) and average the margins, for a judge
that sees two images at a time. `sheet` needs a judge that reads a large image.

Source: arXiv 2406.09397, the LMM judge's prompts and its comparison of them with people.
"""

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np

from actors.judge import SHEET_CRITERIA, RatedCriterion
from jobs.evaluate.config import TOP_K
from jobs.evaluate.figures.metrics import by_query, estimate
from jobs.evaluate.figures.winrate import TIE, MatchedPair, outcomes
from jobs.evaluate.language_models import Judgements, JudgeQuestions

QueryPair = tuple[str, str, str]  # query, the challenger's image, the baseline's image
QueryRows = tuple[str, tuple[str, ...], tuple[str, ...]]  # query, the challenger's results, the baseline's
RATED: tuple[RatedCriterion, ...] = get_args(RatedCriterion)


def questions(
    protocols: Sequence[str], queries: Sequence[str], pairs: Sequence[MatchedPair], rows: Sequence[QueryRows]
) -> JudgeQuestions:
    """What the protocols ask about a challenger's results, besides a rating of each.

    Args:
        pairs: the rank-matched pairs of different images. rows: both lists of each query.
    """
    matched = [(queries[query], a, b) for query, _, a, b in pairs]
    return JudgeQuestions(
        comparisons=[("overall", *pair) for pair in matched] if "ranker" in protocols else (),
        together=[(name, *pair) for name in RATED for pair in matched] if "cp_scorer" in protocols else (),
        sheets=[(name, *row) for name in SHEET_CRITERIA for row in rows if _differ(row)]
        if "sheet" in protocols
        else (),
    )


def _differ(row: QueryRows) -> bool:
    """Whether both lists have results, and not the same ones in the same order."""
    return bool(row[1]) and bool(row[2]) and row[1] != row[2]


def sheet_margins(
    rows: Sequence[QueryRows], judgements: Judgements, criteria: Sequence[str] = SHEET_CRITERIA
) -> np.ndarray:
    """Margin of each query by `sheet`, the mean over these criteria, float [Q, 2]; 0 without an answer."""
    found = np.zeros((len(rows), 2))
    for index, row in enumerate(rows):
        if _differ(row):
            answers = np.array([judgements.sheets[criterion, *row] for criterion in criteria]) - 0.5
            found[index] = answers[~np.isnan(answers).any(axis=1)].sum(axis=0) / len(criteria)
    return found


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
    return np.array(judgements.compared["overall", *pair]) - 0.5


def _rated_alone(pair: QueryPair, judgements: Judgements, threshold: float) -> np.ndarray:
    query, *images = pair
    accuracy = np.array([judgements.accuracy[query, image] for image in images])
    beauty = np.array([judgements.aesthetics[query, image] for image in images])
    a, b = _gated(accuracy, beauty, threshold)
    return np.array([a - b, a - b])


def _rated_together(pair: QueryPair, judgements: Judgements, threshold: float) -> np.ndarray:
    accuracy, beauty = (judgements.together[criterion, *pair] for criterion in RATED)
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
