"""The nulls on a made-up world: the axes of the space are two subjects, beauty, and something else."""

from dataclasses import replace

import numpy as np
import pytest

from actors.nulls import suffix
from actors.nulls.axis import Axis, fit_axis
from actors.nulls.evidence import Evidence

WORDS = {
    "boat": [1, 0, 0, 0],
    "cat": [0, 1, 0, 0],
    "lovely": [0, 0, 0.6, 0],
    "glowing": [0, 0, 0.9, 0],
    "ugly": [0, 0, -0.6, 0],
    "quiet": [0, 0, 0, 0.5],
}
TEMPERATURE = 0.2


def encode(texts):
    """The normalised sum of the words that a text contains; other words mean nothing."""
    return unit([sum(np.array(WORDS.get(word.strip(","), [0] * 4)) for word in t.split()) for t in texts])


def unit(rows):
    rows = np.array(rows, float)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


PRETTY_BOAT, UGLY_BOAT, PRETTY_CAT, UGLY_CAT = unit(
    [[1, 0, 0.5, 0], [1, 0, -0.5, 0], [0, 1, 0.5, 0], [0, 1, -0.5, 0]]
)


def evidence(differences, *, captions=("boat", "cat"), **changes):
    """Evidence of one pair for each of the queries "boat" and "cat"."""
    chosen = {
        "queries": ["boat", "cat"],
        "starts": np.array([0, 1, 2]),
        "differences": np.array(differences, np.float32),
        "p_winner": np.array([1.0, 1.0]),
        "weight": np.array([1.0, 1.0]),
        "captions": captions,
        "caption_images": encode(captions) if captions else np.zeros((0, 4), np.float32),
        "temperature": TEMPERATURE,
        "caption_weight": 1.0,
    }
    return Evidence(**(chosen | changes))


GENERIC = evidence([PRETTY_BOAT - UGLY_BOAT, PRETTY_CAT - UGLY_CAT])
CONDITIONAL = evidence([PRETTY_BOAT - UGLY_BOAT, UGLY_CAT - PRETTY_CAT])
NO_CAPTIONS = evidence(GENERIC.differences, captions=())


def test_log_likelihood_is_that_of_bradley_terry_with_soft_labels_and_weights():
    found = replace(NO_CAPTIONS, p_winner=np.array([1.0, 0.7]), weight=np.array([3.0, 1.0]))
    vectors = encode(["boat, lovely", "cat"])
    margins = [vectors[q] @ found.differences[q] / TEMPERATURE for q in (0, 1)]
    log_p = [-np.log1p(np.exp(-m)) for m in margins]
    log_not = -np.log1p(np.exp(margins[1]))
    expected = (3 * log_p[0] + 0.7 * log_p[1] + 0.3 * log_not) / 4
    assert found.log_likelihood(vectors) == pytest.approx(expected, abs=1e-6)


def test_captions_add_their_share_of_the_log_likelihood():
    vectors = encode(["boat", "cat"])
    # Each of two orthogonal captions is at similarity 1 to its image and 0 to the other.
    of_captions = -np.log1p(np.exp(-1 / TEMPERATURE))
    found = GENERIC.log_likelihood(np.concatenate([vectors, vectors]))
    assert found == pytest.approx(NO_CAPTIONS.log_likelihood(vectors) + of_captions, abs=1e-5)
    doubled = replace(GENERIC, caption_weight=2.0).log_likelihood(np.concatenate([vectors, vectors]))
    assert doubled == pytest.approx(found + of_captions, abs=1e-5)


def test_sample_keeps_the_pairs_of_its_queries():
    made = Evidence(
        ["a", "b", "c"], np.array([0, 1, 3, 6]), np.arange(6, dtype=np.float32)[:, None], np.ones(6),
        np.arange(6.0), ["x", "y"], np.zeros((2, 1), np.float32), 1.0, 1.0,
    )  # fmt: skip
    for seed in range(4):
        found = made.sample(2, 1, seed)
        kept = [made.queries.index(query) for query in found.queries]
        rows = [row for q in kept for row in range(made.starts[q], made.starts[q + 1])]
        assert found.differences[:, 0].tolist() == found.weight.tolist() == rows
        assert np.diff(found.starts).tolist() == [q + 1 for q in kept] and found.captions == ["x"]


def test_axis_points_to_what_all_queries_prefer():
    axis = fit_axis(GENERIC, encode(GENERIC.texts))
    assert axis.direction == pytest.approx([0, 0, 1, 0], abs=1e-4)
    moved = axis.apply(encode(["boat"]))
    assert np.linalg.norm(moved, axis=1) == pytest.approx(1)
    assert moved @ (PRETTY_BOAT - UGLY_BOAT) > encode(["boat"]) @ (PRETTY_BOAT - UGLY_BOAT)


def test_captions_limit_how_far_the_axis_moves_a_query():
    strong = fit_axis(NO_CAPTIONS, encode(NO_CAPTIONS.texts))
    assert 0 < fit_axis(GENERIC, encode(GENERIC.texts)).strength < strong.strength


def test_axis_stays_where_it_is_if_beauty_depends_on_the_query():
    axis = fit_axis(CONDITIONAL, encode(CONDITIONAL.texts))
    assert np.isfinite(axis.direction).all() and axis.strength == 0
    assert axis.apply(encode(["boat"])) == pytest.approx(encode(["boat"]))


def test_pairs_of_weight_zero_do_not_turn_the_axis():
    found = fit_axis(replace(CONDITIONAL, weight=np.array([1.0, 0.0])), encode(CONDITIONAL.texts))
    assert found.direction[2] > 0.9


def test_strength_is_in_units_of_the_querys_length():
    axis = Axis(np.array([0, 0, 1, 0], np.float32), 1.0)
    assert axis.apply(encode(["boat"]))[0] == pytest.approx(np.array([1, 0, 1, 0]) / np.sqrt(2))


def test_suffix_is_the_phrase_that_the_preferences_support_most():
    found = suffix.fit_suffix(GENERIC, encode, ["ugly", "cat", "lovely", "quiet"], seed=0)
    assert found.startswith(", lovely") and set(found.split(", ")) == {"", "lovely"}
    assert suffix.fit_suffix(CONDITIONAL, encode, ["ugly", "lovely", "quiet"], seed=0) == ""


def test_phrases_are_appended_until_none_helps():
    for caption_weight, num_phrases in ((4.0, 1), (1.0, 2), (0.0, suffix.MAX_PHRASES)):
        weighed = replace(GENERIC, caption_weight=caption_weight)
        assert suffix.fit_suffix(weighed, encode, ["lovely", "quiet"], seed=0) == ", lovely" * num_phrases
    assert suffix.fit_suffix(GENERIC, encode, ["lovely", "glowing"], seed=0).startswith(", glowing")


def test_candidates_are_common_phrases_and_the_expectations_of_rephrased_queries():
    common = suffix.candidates([])
    assert len(common) == len(set(common)) >= 200
    assert all(phrase and "," not in phrase and phrase == phrase.strip() for phrase in common)
    found = suffix.candidates(
        [("a boat", "a boat, glowing sails, golden hour."), ("cat", "cat, glowing sails")]
    )
    assert found == [*common, "glowing sails"]
    many = suffix.candidates(("q", f"q, own {i}, shared") for i in range(999))
    assert "shared" in many and len(many) == len(common) + suffix.MAX_EXPECTATIONS


def test_expectations_are_what_rephrasing_added():
    assert suffix.expectations("a boat", "a boat, soft light, mist.") == ["soft light", "mist"]
    assert suffix.expectations("boat", "A misty boat, soft light") == ["A misty boat", "soft light"]
    assert suffix.expectations("boat", "boat") == []
