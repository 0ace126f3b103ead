"""The judge's protocols for two rows of results side by side, each with and without order consistency.

A protocol gives each query a margin for either order of presentation: above 0 the challenger's row is
better, below 0 the baseline's. Rows are compared rank by rank (first with first, ...) and their margins
averaged, since a judge of two pictures cannot be shown ten.

- `ranker`: which of the two pictures is the better answer; the margin is the probability above one half.
- `scorer`: each picture rated alone; the margin is the difference of its beauty where it is accurate.
- `cp_scorer`: the same ratings with both pictures in sight.

Source: arXiv 2406.09397, the LMM judge's prompts and its comparison of them with people. Its third question,
the diversity of a row, needs the whole row in one picture and is measured by the Vendi score instead.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from jobs.evaluate.config import TOP_K
from jobs.evaluate.figures.metrics import by_query, estimate
from jobs.evaluate.figures.winrate import TIE, Duel, outcomes
from jobs.evaluate.language_models import Verdicts

PROTOCOLS = ("ranker", "scorer", "cp_scorer")
Pair = tuple[str, str, str]  # query, image of the challenger's row, image of the baseline's


def margins(
    protocol: str, queries: Sequence[str], duels: Sequence[Duel], verdicts: Verdicts, threshold: float
) -> np.ndarray:
    """Mean margin of each query's rows over its `TOP_K` ranks, float [Q, 2]: shown first, and second.

    duels: the pairs that differ; a rank without one, or one that the judge did not answer in both orders,
    counts 0. threshold: accuracy, 1 to 5, below which beauty counts nothing.
    """
    of_pair = {"ranker": _ranked, "scorer": _rated_alone, "cp_scorer": _rated_together}[protocol]
    found = np.zeros((len(queries), 2))
    for number, _, a, b in duels:
        both = of_pair((queries[number], a, b), verdicts, threshold)
        if not np.isnan(both).any():  # one order alone would tip the row
            found[number] += both / TOP_K
    return found


def _ranked(pair: Pair, verdicts: Verdicts, threshold: float) -> np.ndarray:
    return np.array(verdicts.overall[pair]) - 0.5


def _rated_alone(pair: Pair, verdicts: Verdicts, threshold: float) -> np.ndarray:
    query, *images = pair
    accuracy = np.array([verdicts.accuracy[query, image] for image in images])
    beauty = np.array([verdicts.aesthetics[image] for image in images])
    a, b = _gated(accuracy, beauty, threshold)
    return np.array([a - b, a - b])


def _rated_together(pair: Pair, verdicts: Verdicts, threshold: float) -> np.ndarray:
    accuracy, beauty = (verdicts.together[criterion, *pair] for criterion in ("accuracy", "aesthetics"))
    gated = _gated(accuracy, beauty, threshold)
    return gated[:, 0] - gated[:, 1]


def _gated(accuracy: np.ndarray, beauty: np.ndarray, threshold: float) -> np.ndarray:
    """Beauty moved from [1, 5] to [0, 1] where accurate, else 0; NaN where either is unknown."""
    return np.where(accuracy >= threshold, (beauty - 1) / 4, 0.0 * (accuracy + beauty))


def table(
    queries: Sequence[str],
    margin_of: Mapping[str, np.ndarray],
    people: np.ndarray | None,
    *,
    num_resamples: int,
    seed: int,
) -> list[dict]:
    """The judge table: a row per protocol, with and without order consistency.

    Args:
        queries: whose rows of results, N; a query that stands for several is drawn with all of them.
        margin_of: protocol -> float [N, 2] of the rows that differ.
        people: 1, 0, -1 by the majority of people, int [N], or None where nobody voted.

    Returns:
        {"protocol", "order_consistency", "win_rate", "decided", "agreement"}: the last two are the share of
        rows that the judge decides, and its agreement with people where they decided (a tie counts half).
    """

    def share(values: np.ndarray, weights: np.ndarray) -> dict:
        found = estimate(*by_query(queries, values, weights), num_resamples=num_resamples, seed=seed)
        return found.as_dict()

    all_rows, found = np.ones(len(queries)), []
    for protocol, margin in margin_of.items():
        for consistent in (True, False):
            judged = outcomes(margin, consistent=consistent, seed=seed)
            row = {
                "protocol": protocol,
                "order_consistency": consistent,
                "win_rate": share((judged + 1) / 2, all_rows),
                "decided": share((judged != TIE).astype(float), all_rows),
                "agreement": None,
            }
            if people is not None:
                row["agreement"] = share(0.5 + 0.5 * judged * people, (people != TIE).astype(float))
            found.append(row)
    return found
