"""Diverse results by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998)."""

import numpy as np


def mmr(scores: np.ndarray, vectors: np.ndarray, k: int, weight: float) -> list[int]:
    """Indices of `k` of N images, each with the largest (1 - weight) score - weight likeness.

    scores: float [N], similarity with the query. vectors: float32 [N, D], L2-normalised. weight: 0 to 1. The
    likeness of an image is its largest cosine with the images chosen before it. Ties go to the first.
    """
    num_chosen = min(k, len(scores))
    likeness = np.zeros(len(scores))
    remaining = np.ones(len(scores), bool)
    chosen: list[int] = []
    for _ in range(num_chosen):
        marginal = np.where(remaining, (1 - weight) * scores - weight * likeness, -np.inf)
        best = int(marginal.argmax())
        chosen.append(best)
        remaining[best] = False
        cosines = vectors @ vectors[best]
        likeness = cosines if len(chosen) == 1 else np.maximum(likeness, cosines)
    return chosen
