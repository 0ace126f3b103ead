"""Aesthetic scores from stored vectors: no image is opened, and one matrix product scores them all.

Three scorers with one method, `score(vectors) -> one number per image, higher is more beautiful`:
- `PromptPairs`: how much nearer an image is to "good photo" than to "bad photo" (CLIP-IQA, arXiv 2207.12396);
- `RankAxis`: the direction from a few ugly images to a few beautiful ones;
- `LinearHead`: ridge regression on rated images.
Each is valid only for vectors of the encoder it was made with.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

PROMPT_PAIRS: tuple[tuple[str, str], ...] = (
    ("good photo", "bad photo"),
    ("beautiful", "ugly"),
    ("sharp focus", "blurry"),
    ("beautiful light", "flat light"),
    ("well composed", "badly framed"),
    ("vivid colours", "muddy colours"),
    ("clean background", "messy background"),
)


class Scorer(Protocol):
    """Scores the aesthetics of images from their vectors."""

    def score(self, vectors: np.ndarray) -> np.ndarray:
        """Float32 [N, D], L2-normalised -> float64 [N], higher is more beautiful."""
        ...


@dataclass(frozen=True)
class PromptPairs:
    """CLIP-IQA: the mean over pairs of the probability of the good prompt against the bad one, in [0, 1].

    good, bad: text vectors float32 [P, D], L2-normalised. temperature: that of the encoder (1 / logit scale).
    """

    good: np.ndarray
    bad: np.ndarray
    temperature: float

    @classmethod
    def of(
        cls,
        encode_texts: Callable[[Sequence[str]], np.ndarray],
        temperature: float,
        pairs: Sequence[tuple[str, str]] = PROMPT_PAIRS,
    ) -> "PromptPairs":
        """Encode the (good, bad) prompts with the encoder's text tower."""
        good, bad = zip(*pairs, strict=True)
        return cls(good=encode_texts(list(good)), bad=encode_texts(list(bad)), temperature=temperature)

    def score(self, vectors: np.ndarray) -> np.ndarray:
        """See `Scorer`."""
        differences = np.asarray(vectors, dtype=np.float64) @ (self.good - self.bad).T / self.temperature
        return (1.0 / (1.0 + np.exp(-differences))).mean(axis=1)


@dataclass(frozen=True)
class RankAxis:
    """A direction in embedding space; the score is the cosine with it, in [-1, 1]."""

    axis: np.ndarray

    @classmethod
    def fit(cls, vectors: np.ndarray, ratings: np.ndarray, extreme_share: float = 0.2) -> "RankAxis":
        """From the mean of the worst rated to the mean of the best rated, `extreme_share` of the images each.

        Raises ValueError for fewer than two images or ratings that are all equal.
        """
        _check(vectors, ratings)
        count = max(1, round(extreme_share * len(ratings)))
        order = np.argsort(ratings, kind="stable")
        axis = vectors[order[-count:]].mean(axis=0) - vectors[order[:count]].mean(axis=0)
        return cls(axis=(axis / np.linalg.norm(axis)).astype(np.float32))

    def score(self, vectors: np.ndarray) -> np.ndarray:
        """See `Scorer`."""
        return np.asarray(vectors, dtype=np.float64) @ self.axis.astype(np.float64)


@dataclass(frozen=True)
class LinearHead:
    """A linear function of the embedding, in the units of the ratings it was fitted on."""

    weights: np.ndarray
    bias: float

    @classmethod
    def fit(cls, vectors: np.ndarray, ratings: np.ndarray) -> "LinearHead":
        """Ridge regression; its strength is chosen by leave-one-out error. Raises like `RankAxis.fit`."""
        from sklearn.linear_model import RidgeCV

        _check(vectors, ratings)
        ridge = RidgeCV(alphas=np.logspace(-3, 3, 13)).fit(vectors, ratings)
        weights = np.asarray(ridge.coef_, dtype=np.float64)
        return cls(weights=weights, bias=float(ridge.intercept_))

    def score(self, vectors: np.ndarray) -> np.ndarray:
        """See `Scorer`."""
        return np.asarray(vectors, dtype=np.float64) @ self.weights + self.bias


def _check(vectors: np.ndarray, ratings: np.ndarray) -> None:
    if len(vectors) != len(ratings) or len(ratings) < 2:
        raise ValueError(
            f"{len(vectors)} vectors and {len(ratings)} ratings: give at least two rated images."
        )
    if np.ptp(ratings) == 0:
        raise ValueError(
            f"all {len(ratings)} ratings are {ratings[0]}: an order cannot be learned from equal ones."
        )
