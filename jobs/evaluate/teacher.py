"""The teacher: the cascade that alignment distils, and the bar to reach.

Rephrase the query, retrieve K images with the rephrased text by the baseline, drop what the judge or the
baseline itself (the profile's `label.semantic`) finds inaccurate for the original query, order the rest by
the judge's aesthetics. Beauty without accuracy is no gain, so what was dropped only fills up a short list,
the most accurate first.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from actors.cascade import cascade_order


def gated_scores(accuracy: np.ndarray, aesthetics: np.ndarray, *, threshold: float) -> np.ndarray:
    """The teacher's score of an image for a query: its aesthetics if accurate, else 0; NaN counts 0."""
    accurate = np.asarray(accuracy, float) >= threshold
    return np.where(accurate, np.nan_to_num(np.asarray(aesthetics, float)), 0.0)


def rank_candidates(
    queries: Sequence[str],
    candidates: Sequence[Sequence[str]],
    accuracy: Mapping[tuple[str, str], float],
    aesthetics: Mapping[str, float],
    *,
    threshold: float,
) -> list[list[str]]:
    """The cascade's final list for each query: its candidates' image_ids, all of them, in cascade order.

    `accuracy` maps (query, image_id) and `aesthetics` image_id to the judge's score.
    """
    ranked = []
    for query, ids in zip(queries, candidates, strict=True):
        scores = np.array([(accuracy[query, i], aesthetics[i]) for i in ids], float).reshape(-1, 2)
        ranked.append([ids[i] for i in cascade_order(scores[:, 0], scores[:, 1], threshold=threshold)])
    return ranked


def pair_scores(
    pairs: Sequence[tuple[str, str]],
    accuracy: Mapping[tuple[str, str], float],
    aesthetics: Mapping[str, float],
    *,
    threshold: float,
) -> dict[tuple[str, str], float]:
    """Gated score of each (query, image_id)."""
    scores = np.array([(accuracy[pair], aesthetics[pair[1]]) for pair in pairs], float).reshape(-1, 2)
    return dict(zip(pairs, gated_scores(scores[:, 0], scores[:, 1], threshold=threshold), strict=True))
