"""The metrics of an evaluation against naive oracles and closed forms."""

import numpy as np
import pytest

from actors.cascade import cascade_order
from jobs.evaluate import teacher
from jobs.evaluate.figures import metrics, per_query, winrate


def test_ranks_start_at_one_and_a_missing_image_is_beyond_any_k():
    lists = [["a", "b", "c"], ["a", "b"], []]
    ranks = metrics.rank_in_lists(lists, [frozenset("c"), frozenset("xb"), frozenset("a")])
    assert ranks[:2].tolist() == [3, 2]
    assert metrics.recall_at(ranks, 1_000_000).tolist() == [1, 1, 0]


def test_inaccurate_image_counts_zero_in_aesthetic_at_k():
    accurate = np.array([[True, False], [False, False], [True, True]])
    aesthetics = np.array([[0.5, 1.0], [1.0, 1.0], [0.25, 0.75]])
    assert metrics.aesthetic_at(accurate, aesthetics).tolist() == [0.25, 0.0, 0.5]
    assert metrics.aesthetic_at(accurate[:1], np.array([[0.5, np.nan]])).tolist() == [0.25]
    assert metrics.precision_at(accurate).tolist() == [0.5, 0.0, 1.0]


def test_estimate_is_the_mean_with_a_normal_interval():
    values = np.random.default_rng(1).normal(3, 2, 400)
    figure = metrics.estimate(values, num_resamples=4000, seed=0)
    half_width = 1.96 * values.std() / 20
    assert figure.value == pytest.approx(values.mean())
    assert figure.low == pytest.approx(values.mean() - half_width, abs=0.03)
    assert figure.high == pytest.approx(values.mean() + half_width, abs=0.03)
    assert figure == metrics.estimate(values, num_resamples=4000, seed=0)
    assert figure != metrics.estimate(values, num_resamples=4000, seed=1)


def test_estimate_agrees_with_scipys_bootstrap():
    from scipy.stats import bootstrap

    values = np.random.default_rng(2).exponential(1, 60)
    ours = metrics.estimate(values, num_resamples=9999, seed=0)
    theirs = bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=0).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_queries_are_weighted_and_those_of_weight_zero_excluded():
    figure = metrics.estimate(np.array([1.0, 0.0, 9.0]), np.array([3.0, 1.0, 0.0]), num_resamples=200, seed=0)
    assert figure.value == pytest.approx(0.75)
    assert figure.num_queries == 2
    assert (figure.low, figure.high) == (0, 1)


def test_estimate_without_queries_is_null():
    figure = metrics.estimate(np.array([]), num_resamples=200, seed=0)
    assert figure.as_dict() == {"value": None, "ci95": None, "num_queries": 0}


def test_paired_difference_of_a_constant_shift_has_no_width():
    before = np.random.default_rng(3).normal(0, 1, 100)
    figure = metrics.paired_difference(before + 0.1, before, num_resamples=500, seed=0)
    assert (figure.value, figure.low, figure.high) == pytest.approx((0.1, 0.1, 0.1))


def test_rows_of_one_query_become_one_observation():
    values, weights = metrics.by_query(
        ["q", "r", "q", "s"], np.array([1.0, 0.5, 0.0, 1.0]), np.array([3, 1, 1, 0])
    )
    assert values.tolist() == [0.75, 0.5, 0.0]
    assert weights.tolist() == [4, 1, 0]


def test_images_of_one_subject_are_drawn_together():
    """Two subjects that are all right or all wrong: a resample of subjects has 0, 1 or 2 of the right one."""
    labels = {f"{number:03d}": "boat" if number < 50 else "lamp" for number in range(100)}
    of_subjects = per_query.by_group({i: label == "boat" for i, label in labels.items()}, labels)
    assert (of_subjects.values.tolist(), of_subjects.weights.tolist()) == ([1.0, 0.0], [50.0, 50.0])
    figure = metrics.estimate(of_subjects.values, of_subjects.weights, num_resamples=500, seed=0)
    assert (figure.value, figure.low, figure.high, figure.num_queries) == (0.5, 0.0, 1.0, 2)


def test_value_by_subject_is_the_share_of_images_whatever_their_order():
    hits, labels = {"c": True, "a": True, "b": False, "d": True}, {"a": "x", "b": "x", "c": "x", "d": "y"}
    found = per_query.by_group(hits, labels)
    assert found.values @ found.weights / found.weights.sum() == pytest.approx(3 / 4)
    again = per_query.by_group(dict(sorted(hits.items())), labels)
    assert (again.values.tolist(), again.weights.tolist()) == (found.values.tolist(), [3.0, 1.0])


def test_image_recall_counts_images_by_caption():
    found = per_query.image_recalls({"a": 1, "b": 6, "c": 11}, {"a": 0, "b": 0, "c": 1, "d": -1})
    assert {name: own.values.tolist() for name, own in found.items()} == {
        "image_recall@1": [0.5, 0.0],
        "image_recall@5": [0.5, 0.0],
        "image_recall@10": [1.0, 0.0],
    }
    assert found["image_recall@1"].weights.tolist() == [2.0, 1.0]
    assert per_query.image_recalls({}, {}) == {}


def test_cascade_orders_accurate_images_by_beauty_then_the_rest_by_accuracy():
    accuracy = np.array([4.0, 2.0, 5.0, 2.9, np.nan, 3.0])
    aesthetics = np.array([2.0, 5.0, 3.0, 5.0, 5.0, 3.0])
    order = cascade_order(accuracy, aesthetics, threshold=3.0)
    # 2 and 5 tie in beauty and keep their retrieval order; 3 is more accurate than 1; 4 has no rating.
    assert order.tolist() == [2, 5, 0, 3, 1, 4]


def test_teacher_scores_an_inaccurate_image_zero():
    scores = teacher.pair_scores(
        [("q", "a"), ("q", "b"), ("r", "a")],
        {("q", "a"): 3.0, ("q", "b"): 2.9, ("r", "a"): np.nan},
        {("q", "a"): 4.0, ("r", "a"): 4.0},
        threshold=3.0,
    )
    assert scores == {("q", "a"): 4.0, ("q", "b"): 0.0, ("r", "a"): 0.0}


def test_query_is_won_only_if_both_orders_agree():
    p_ab = np.array([0.9, 0.9, 0.1, 0.5, 0.6])
    p_ba = np.array([0.8, 0.2, 0.3, 0.5, 0.5])
    margins = np.stack([p_ab, p_ba], axis=1) - 0.5
    outcomes = winrate.outcomes(margins)
    assert outcomes.tolist() == [winrate.WIN, winrate.TIE, winrate.LOSS, winrate.TIE, winrate.TIE]
    result = winrate.summary(outcomes, num_resamples=200, seed=0)
    assert (result["wins"], result["ties"], result["losses"]) == (1, 3, 1)
    assert result["value"] == 0.5
    differs = np.array([True, True, True, False, False])
    assert winrate.order_consistency(margins, differs) == pytest.approx(2 / 3, abs=1e-6)
    assert winrate.order_consistency(margins, np.zeros(5, bool)) is None


def test_without_order_consistency_a_coin_chooses_the_order():
    margins = np.tile([[0.4, -0.4]], (200, 1))
    assert not winrate.outcomes(margins).any()  # the two orders contradict each other
    alone = winrate.outcomes(margins, consistent=False, seed=0)
    assert 60 < (alone == winrate.WIN).sum() < 140 and (alone != winrate.TIE).all()
    assert (alone == winrate.outcomes(margins, consistent=False, seed=0)).all()


def test_only_pairs_of_different_images_are_judged():
    rows_a, rows_b = [["a", "b", "c"], ["a"]], [["a", "x", "y"], ["a"]]
    pairs = winrate.pairs_to_judge(rows_a, rows_b)
    assert pairs == [(0, 1, "b", "x"), (0, 2, "c", "y")]


def test_swapping_the_systems_mirrors_the_win_rate():
    rng = np.random.default_rng(4)
    margins = rng.random((50, 2)) - 0.5
    forward = winrate.summary(winrate.outcomes(margins), num_resamples=200, seed=0)
    backward = winrate.summary(winrate.outcomes(-margins[:, ::-1]), num_resamples=200, seed=0)
    assert forward["value"] == pytest.approx(1 - backward["value"])
    assert (forward["wins"], forward["losses"]) == (backward["losses"], backward["wins"])


def test_sign_flip_p_value_in_closed_form():
    """Five equal differences: only two of the 32 sign patterns reach their sum."""
    p = metrics.sign_flip_p(np.full(5, 0.3), num_resamples=20_000, seed=0)
    assert p == pytest.approx(2 / 32, abs=0.01)
    assert metrics.sign_flip_p(np.array([0.5, -0.5]), num_resamples=100, seed=0) == 1.0
    assert metrics.sign_flip_p(np.zeros(4), num_resamples=100, seed=0) is None
    weights = np.array([1.0, 0.0])  # a difference of weight 0 is not tested
    assert metrics.sign_flip_p(np.array([0.0, 9.0]), weights, num_resamples=100, seed=0) is None


@pytest.mark.parametrize("num_copies", [1, 2, 3])
def test_vendi_score_counts_directions_regardless_of_copies(num_copies):
    vectors = np.repeat(np.eye(4, 7), num_copies, axis=0)
    assert metrics.vendi_score(vectors) == pytest.approx(4.0)


def test_vendi_score_of_two_vectors_in_closed_form():
    """Eigenvalues (1 + c) / 2 and (1 - c) / 2 for a cosine of c."""
    c = 0.6
    expected = np.exp(-(0.8 * np.log(0.8) + 0.2 * np.log(0.2)))
    assert metrics.vendi_score(np.array([[1.0, 0.0], [c, 0.8]])) == pytest.approx(expected)
