"""Aesthetic scores from vectors with known ratings."""

import numpy as np
import pytest

from actors.scorers import LinearHead, PromptPairs, RankAxis


@pytest.fixture
def rated() -> tuple[np.ndarray, np.ndarray]:
    """200 unit vectors of 8 dimensions; the rating grows with the first."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), 3.0 + 2.0 * vectors[:, 0]


def test_prompt_pairs_equal_values_worked_out_by_hand():
    good, bad = np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[::-1]
    scorer = PromptPairs(good=good[:1], bad=bad[:1], temperature=0.5)
    scores = scorer.score(np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.6]]))
    assert scores == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2)), 0.5])


def test_prompt_pairs_average_over_pairs():
    texts = {"a": [1.0, 0.0], "b": [0.0, 1.0]}
    scorer = PromptPairs.of(lambda words: np.array([texts[w] for w in words]), 1.0, (("a", "b"), ("b", "a")))
    assert scorer.score(np.array([[0.9, 0.1]])) == pytest.approx([0.5])


def test_rank_axis_finds_the_direction(rated):
    vectors, ratings = rated
    axis = RankAxis.fit(vectors, ratings)
    assert axis.axis[0] > 0.9 and np.linalg.norm(axis.axis) == pytest.approx(1.0)
    assert np.corrcoef(axis.score(vectors), ratings)[0, 1] > 0.9


def test_linear_head_predicts_the_rating(rated):
    vectors, ratings = rated
    head = LinearHead.fit(vectors[:150], ratings[:150])
    assert head.score(vectors[150:]) == pytest.approx(ratings[150:], abs=0.05)


@pytest.mark.parametrize("scorer", [RankAxis, LinearHead])
def test_equal_or_too_few_ratings_are_refused(scorer):
    with pytest.raises(ValueError, match="equal"):
        scorer.fit(np.eye(3), np.array([2.0, 2.0, 2.0]))
    with pytest.raises(ValueError, match="at least two"):
        scorer.fit(np.eye(1), np.array([2.0]))
