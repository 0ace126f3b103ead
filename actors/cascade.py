"""What orders the teacher's candidates: accurate first, and those by beauty. Pure numpy."""

import numpy as np

NATS_A_POINT = 0.75
"""Log-probability that costs a point of accuracy, where an encoder rates."""


def cascade_order(accuracy: np.ndarray, aesthetics: np.ndarray, *, threshold: float) -> np.ndarray:
    """Order of K candidates, int [K]: the accurate by aesthetics, then the inaccurate by accuracy.

    `accuracy` and `aesthetics` float [K] on the judge's scale 1 to 5; accurate is >= threshold. Candidates
    come in retrieval order, which also settles ties. What the judge could not answer (NaN) is inaccurate and
    last.
    """
    accuracy = np.nan_to_num(np.asarray(accuracy, float), nan=-np.inf)
    accurate = accuracy >= threshold
    beauty = np.nan_to_num(np.asarray(aesthetics, float), nan=-np.inf)
    return np.lexsort((np.where(accurate, -beauty, -accuracy), ~accurate))


def encoder_ratings(similarities: np.ndarray, best: np.ndarray | float, temperature: float) -> np.ndarray:
    """How well images answer a query by an encoder, float [N] in [1, 5]: the judge's scale.

    similarities: float [N], cosines with the query. best: that of the gallery's nearest image, which rates 5;
    every `NATS_A_POINT` of log-probability below it, that is of similarity over temperature, costs a point.
    """
    below = (np.asarray(best, float) - np.asarray(similarities, float)) / (NATS_A_POINT * temperature)
    return np.clip(5.0 - below, 1.0, 5.0)
