"""Metrics as pure functions of arrays: ranks, recall, precision, aesthetics, bootstrap intervals.

Shapes: Q queries, R resamples, D dimensions, k results.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A figure with its bootstrap 95 % interval over queries."""

    value: float
    low: float
    high: float
    num_queries: int

    def as_dict(self) -> dict:
        """{"value", "ci95", "num_queries"}; the value without queries is null, not NaN."""
        if not np.isfinite(self.value):
            return {"value": None, "ci95": None, "num_queries": self.num_queries}
        ci95 = [round(self.low, 6), round(self.high, 6)]
        return {"value": round(self.value, 6), "ci95": ci95, "num_queries": self.num_queries}


def recall_at(ranks: np.ndarray, k: int) -> np.ndarray:
    """1.0 where the wanted image is among the first k, float [Q]."""
    return (np.asarray(ranks) <= k).astype(float)


def rank_in_lists(lists: Sequence[Sequence[str]], wanted: Sequence[frozenset[str]]) -> np.ndarray:
    """Rank (1 = first) of the first wanted id in each list, int [Q]; 2**31 for a list without one."""
    missing = 2**31
    pairs = zip(lists, wanted, strict=True)
    return np.array(
        [next((rank for rank, x in enumerate(ids, 1) if x in want), missing) for ids, want in pairs]
    )


def precision_at(accurate: np.ndarray) -> np.ndarray:
    """Share of accurate images; bool [Q, k] -> float [Q]; a missing image is False."""
    return np.asarray(accurate, float).mean(axis=1)


def aesthetic_at(accurate: np.ndarray, aesthetics: np.ndarray) -> np.ndarray:
    """Mean aesthetics of each query's results where an inaccurate image counts 0; [Q, k] in [0, 1] -> [Q]."""
    return np.where(accurate, aesthetics, 0.0).mean(axis=1)


def vendi_score(vectors: np.ndarray) -> float:
    """Effective number of different images, from 1 (all alike) to k (arXiv 2210.02410).

    `vectors` float [k, D], L2-normalised, k >= 1: the exponential of the entropy of the eigenvalues of their
    cosine similarities over k. It is 1 for copies of one vector and k for orthogonal ones.
    """
    eigenvalues = np.linalg.eigvalsh(np.asarray(vectors, float) @ np.asarray(vectors, float).T / len(vectors))
    shares = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(shares * np.log(shares)).sum()))


@lru_cache(maxsize=16)  # drawing them takes longer than all else, and many figures share them
def resample_counts(num_queries: int, *, num_resamples: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """How often each query is drawn in each resample, float [R, Q]; each row sums to Q.

    Drawing Q queries with replacement R times is one multinomial draw, and a resampled sum is a matrix
    product; systems that share these counts are compared on the same queries (paired).
    """
    rng = np.random.default_rng(seed)
    even = np.full(num_queries, 1 / num_queries)
    counts = rng.multinomial(num_queries, even, size=num_resamples).astype(float)
    counts.flags.writeable = False
    return counts


def estimate(
    values: np.ndarray, weights: np.ndarray | None = None, *, num_resamples: int, seed: int
) -> Estimate:
    """Weighted mean of per-query values with its percentile bootstrap 95 % interval over queries.

    `values` float [Q] are per-query means, `weights` float [Q] >= 0 (all 1 if None); a query of weight 0 is
    excluded. Empty input gives NaN. The same seed gives the same interval.
    """
    values = np.asarray(values, float)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, float)
    kept = weights > 0
    values, weights = values[kept], weights[kept]
    if len(values) == 0:
        return Estimate(np.nan, np.nan, np.nan, 0)
    resamples = resampled_means(values, weights, num_resamples=num_resamples, seed=seed)
    return interval_of(float(values @ weights / weights.sum()), resamples, len(values))


def resampled_means(
    values: np.ndarray, weights: np.ndarray | None = None, *, num_resamples: int, seed: int | tuple[int, ...]
) -> np.ndarray:
    """Weighted means of `num_resamples` resamples of the queries, float [R]; the same seed draws the same
    queries, so systems can be compared resample by resample.
    """
    values = np.asarray(values, float)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, float)
    counts = resample_counts(len(values), num_resamples=num_resamples, seed=seed)
    return (counts @ (values * weights)) / (counts @ weights)


def interval_of(value: float, resamples: np.ndarray, num_queries: int) -> Estimate:
    """A figure with the percentile 95 % interval of its resamples, float [R]."""
    low, high = np.percentile(resamples, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high), num_queries)


def paired_difference(
    after: np.ndarray,
    before: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    num_resamples: int,
    seed: int,
) -> Estimate:
    """Mean of after - before over the same queries, with its interval; both share the weights."""
    differences = np.asarray(after, float) - np.asarray(before, float)
    return estimate(differences, weights, num_resamples=num_resamples, seed=seed)


def sign_flip_p(
    differences: np.ndarray, weights: np.ndarray | None = None, *, num_resamples: int, seed: int
) -> float | None:
    """Two-sided p-value of a paired test of differences, float [Q]: how often their weighted mean is at least
    as far from 0 when the sign of each is random.

    In (0, 1], at least 1 / (num_resamples + 1); None if all differences are 0.
    """
    weighed = np.asarray(differences, float) * (1.0 if weights is None else np.asarray(weights, float))
    if not np.any(weighed):
        return None
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(num_resamples, len(weighed)))
    reached = np.abs(signs @ weighed) >= np.abs(weighed.sum()) - 1e-12
    return round(float((1 + reached.sum()) / (1 + num_resamples)), 6)


def by_query(
    queries: Sequence[Hashable], values: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Per-query weighted means and weight sums of rows that may share a query; order of first appearance.

    Rows of one query are not independent, so the bootstrap must draw queries, not rows.
    """
    index = {query: i for i, query in enumerate(dict.fromkeys(queries))}
    rows = np.array([index[query] for query in queries], np.int64)
    weight = np.bincount(rows, weights, minlength=len(index))
    total = np.bincount(rows, np.asarray(values, float) * weights, minlength=len(index))
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0), weight
