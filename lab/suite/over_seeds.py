"""Means over seeds with their bootstrap intervals."""

from collections.abc import Sequence

import numpy as np

from jobs.evaluate.figures import metrics


def resampled_over_seeds(
    groups: Sequence[tuple[np.ndarray, np.ndarray]], *, num_resamples: int, seed: int
) -> np.ndarray:
    """Mean over seeds of the resampled weighted means, float [R]; seeds are resampled independently."""
    drawn = [
        metrics.resampled_means(values, weights, num_resamples=num_resamples, seed=(seed, index))
        for index, (values, weights) in enumerate(groups)
    ]
    return np.mean(drawn, axis=0)


def over_seeds(
    groups: Sequence[tuple[np.ndarray, np.ndarray]], *, num_resamples: int, seed: int
) -> metrics.Estimate:
    """Mean over seeds of each seed's weighted mean, with its bootstrap interval over the seeds' queries.

    `groups`: (values, weights), float [Q] each, one per seed. Queries are resampled within their seed, so the
    interval shows the uncertainty on these worlds, not the spread between worlds.
    """
    means = [float(np.asarray(values) @ weights / np.sum(weights)) for values, weights in groups]
    resamples = resampled_over_seeds(groups, num_resamples=num_resamples, seed=seed)
    return metrics.interval_of(float(np.mean(means)), resamples, sum(len(values) for values, _ in groups))
