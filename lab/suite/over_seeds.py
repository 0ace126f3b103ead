"""Means over seeds with their bootstrap intervals.

A group is (values, weights) of the queries of one seed, float [Q] each.
"""

from collections.abc import Sequence

import numpy as np

from jobs.evaluate.figures import metrics

Group = tuple[np.ndarray, np.ndarray]


def resampled_over_seeds(groups: Sequence[Group], *, num_resamples: int, seed: int) -> np.ndarray:
    """Mean over seeds of the weighted means, resampled in two stages, float [R]: studios with replacement,
    and queries within each drawn studio.

    The same seed draws the same studios, and the same queries where their number is the same, so systems can
    be compared resample by resample.
    """
    means = np.stack(
        [
            metrics.resampled_means(values, weights, num_resamples=num_resamples, seed=(seed, index))
            for index, (values, weights) in enumerate(groups)
        ]
    )
    rng = np.random.default_rng(seed)
    shape = (num_resamples, len(groups))
    # Each draw of a studio takes its own resample of the queries.
    return means[rng.integers(len(groups), size=shape), rng.integers(num_resamples, size=shape)].mean(axis=1)


def mean_over_seeds(groups: Sequence[Group]) -> float:
    """Mean over seeds of each seed's weighted mean."""
    return float(np.mean([np.average(values, weights=weights) for values, weights in groups]))


def over_seeds(groups: Sequence[Group], *, num_resamples: int, seed: int) -> metrics.Estimate:
    """`mean_over_seeds` with its bootstrap interval over studios and, within them, queries.

    With one seed there is no spread between studios: the interval is over its queries alone.
    """
    resamples = resampled_over_seeds(groups, num_resamples=num_resamples, seed=seed)
    return metrics.interval_of(mean_over_seeds(groups), resamples, sum(len(values) for values, _ in groups))
