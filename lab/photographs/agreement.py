"""How often scores agree with people's votes, with intervals. Plain numpy: no model, no Ray.

Shapes: N photographs, P pairs, S training runs with different seeds, R bootstrap resamples.
"""

from collections.abc import Callable, Sequence

import numpy as np

from jobs.evaluate import hpir
from jobs.evaluate.figures.metrics import resample_counts
from jobs.evaluate.hpir import Votes
from lab.photographs.dataset import Fold, RatedPhotographs, folds


def held_out_scores(rated: RatedPhotographs, method: Callable[[Fold], np.ndarray]) -> np.ndarray:
    """Scores of both photographs of every pair, by a method fitted on the other rater groups; float [P, 2].

    `method` returns a score for every photograph, [N], or for both photographs of every pair, [P, 2].
    """
    scores = np.empty((len(rated.votes), 2))
    for fold in folds(rated):
        in_fold, fold_scores = rated.pair_groups == fold.name, method(fold)
        if fold_scores.ndim == 1:
            fold_scores = fold_scores[rated.pairs]
        scores[in_fold] = fold_scores[in_fold]
    return scores


def agreement_per_pair(rated: RatedPhotographs, scores: np.ndarray) -> np.ndarray:
    """Mean over training runs of 1 (sides with the majority), 0 (does not) or 0.5 (equal scores); float [P].

    `scores` float [S, P, 2]: of photographs A and B, higher is preferred.
    """
    return np.mean([hpir.agreement(of_run, rated.votes)[0] for of_run in scores], axis=0)


def one_rater_against_others(votes: Sequence[Votes]) -> np.ndarray:
    """Probability that a rater with a preference agrees with the majority of the other raters; float [P].

    With a votes for A and b for B, a rater who chose A (a share a / (a + b) of them) is compared with a - 1
    against b votes, one who chose B with a against b - 1. An even split counts one half. A pair on which
    nobody has a preference gets 0.5.
    """
    a, b = np.array([(vote.a, vote.b) for vote in votes], float).reshape(-1, 2).T
    agree = a * (1 + np.sign(a - 1 - b)) / 2 + b * (1 + np.sign(b - 1 - a)) / 2
    return np.divide(agree, a + b, out=np.full_like(a, 0.5), where=a + b > 0)


def summarise(
    rated: RatedPhotographs, values: np.ndarray, scope: str, *, num_resamples: int, seed: int
) -> dict:
    """Mean of `values`, float [P], over the pairs of a scope that have a majority, with its interval.

    Returns {"value", "ci95", "num_pairs", "folds": {held-out group: value}, "weighted": {"value", "ci95"}}.
    `weighted` weighs a pair by its confidence |a - b| / (a + b + ties), as the HPIR metric does. The interval
    is a percentile bootstrap over photographs within their rater groups: pairs share photographs, so they are
    not independent, and there are too few queries to resample (a category is one query). The count of a pair
    in a resample is the product of the counts of its two photographs.
    """
    _, confidence = hpir.agreement(np.zeros((len(rated.votes), 2)), rated.votes)
    kept = (rated.scopes == scope) & (confidence > 0)
    draws = _pair_draws(rated, kept, num_resamples=num_resamples, seed=seed)
    value, ci95 = _mean(values[kept], np.ones(kept.sum()), draws)
    of_fold = {
        fold.name: _mean(values[in_fold], np.ones(in_fold.sum()), None)[0]
        for fold in folds(rated)
        if (in_fold := kept & (rated.pair_groups == fold.name)).any()
    }
    weighted_value, weighted_ci95 = _mean(values[kept], confidence[kept], draws)
    return {
        "value": value,
        "ci95": ci95,
        "num_pairs": int(kept.sum()),
        "folds": of_fold,
        "weighted": {"value": weighted_value, "ci95": weighted_ci95},
    }


def _pair_draws(rated: RatedPhotographs, kept: np.ndarray, *, num_resamples: int, seed: int) -> np.ndarray:
    """How often each kept pair is drawn in each resample, float [R, kept]."""
    draws = np.zeros((num_resamples, len(rated.files)))
    for index, fold in enumerate(folds(rated)):
        draws[:, fold.held_out] = resample_counts(
            len(fold.held_out), num_resamples=num_resamples, seed=seed + index
        )
    return draws[:, rated.pairs[kept, 0]] * draws[:, rated.pairs[kept, 1]]


def _mean(
    values: np.ndarray, weights: np.ndarray, draws: np.ndarray | None
) -> tuple[float | None, list[float] | None]:
    """Weighted mean and its 95 % interval, rounded to 4 digits; None where there is nothing to average."""
    if not weights.sum():
        return None, None
    value = round(float(values @ weights / weights.sum()), 4)
    if draws is None:
        return value, None
    total = draws @ weights
    means = (draws @ (values * weights))[total > 0] / total[total > 0]
    return value, [round(float(end), 4) for end in np.percentile(means, [2.5, 97.5])]
