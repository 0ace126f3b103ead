"""Results that differ: maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998)."""

import numpy as np


def mmr(scores: np.ndarray, vectors: np.ndarray, k: int, weight: float) -> list[int]:
    """Positions of `k` of N candidates, each the best of (1 - weight) score - weight nearest likeness.

    scores: float [N], similarity with the query. vectors: float32 [N, D], L2-normalised. weight: 0 to 1. The
    likeness of a candidate is its largest cosine with those chosen before it. Ties go to the first.
    """
    num_chosen = min(k, len(scores))
    likeness = np.zeros(len(scores))
    left = np.ones(len(scores), bool)
    chosen: list[int] = []
    for _ in range(num_chosen):
        marginal = np.where(left, (1 - weight) * scores - weight * likeness, -np.inf)
        best = int(marginal.argmax())
        chosen.append(best)
        left[best] = False
        against = vectors @ vectors[best]
        likeness = against if len(chosen) == 1 else np.maximum(likeness, against)
    return chosen
