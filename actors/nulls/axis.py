"""The null `axis`: every query's vector moves along one direction, towards what was preferred."""

from dataclasses import dataclass

import numpy as np

from actors.nulls.evidence import Evidence

STRENGTHS = np.linspace(0, 2, 41)  # a query's vector has length 1
INVERSE_REGULARISATION = 10.0  # scikit-learn's C, for a mean weight of 1 per query


@dataclass(frozen=True)
class Axis:
    """A direction, float32 [D] of length 1, and how far it moves a query's vector."""

    direction: np.ndarray
    strength: float

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """normalise(q + strength * direction) of each query's vector q, float32 [N, D]."""
        moved = vectors + self.strength * self.direction
        return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


def fit_axis(evidence: Evidence, vectors: np.ndarray) -> Axis:
    """The direction by logistic regression on winner minus loser, and the best of `STRENGTHS`.

    The regression is Bradley-Terry without the query: one direction for the preferences of all queries. The
    strength is the one with the highest `Evidence.log_likelihood`. Choosing it by the same preferences that
    the direction was fitted to favours the null.

    vectors: float32 [Q + C, D], L2-normalised, of the evidence's texts.
    """
    direction = fit_direction(evidence)
    axes = [Axis(direction, float(strength)) for strength in STRENGTHS]
    return max(axes, key=lambda axis: evidence.log_likelihood(axis.apply(vectors)))


def fit_direction(evidence: Evidence) -> np.ndarray:
    """The direction that separates winners from losers, float32 [D] of length 1; 0 if there is none."""
    from sklearn.linear_model import LogisticRegression

    differences, p_winner = evidence.differences, evidence.p_winner
    share = evidence.weight * len(evidence.queries) / evidence.weight.sum()
    # A pair is one observation of each outcome, weighted by the outcome's probability.
    model = LogisticRegression(fit_intercept=False, C=INVERSE_REGULARISATION, max_iter=1000).fit(
        np.concatenate([differences, differences]),
        np.repeat([1, 0], len(differences)),
        np.concatenate([share * p_winner, share * (1 - p_winner)]),
    )
    return (model.coef_[0] / max(np.linalg.norm(model.coef_[0]), 1e-12)).astype(np.float32)
