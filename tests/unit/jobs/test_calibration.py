"""Calibration of p_winner, on hand-made pairs whose better image is known."""

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit

from cluster.schemas import PREFERENCE_KEY
from cluster.tables import SCHEMAS
from jobs.label.calibration import (
    MIN_PAIRS,
    Calibration,
    Evidence,
    calibrate,
    calibrate_run,
    fit_weights,
    read_run,
    reliability,
)

RUN = "r" * 16


def evidence(gaps, share, source="votes", weight=None) -> Evidence:
    gaps = np.array(gaps, dtype=float).reshape(-1, 2)
    weight = np.ones(len(gaps)) if weight is None else np.array(weight, dtype=float)
    queries = np.array([f"q{number % 10}" for number in range(len(gaps))], dtype=object)
    return Evidence(source, gaps, np.array(share, dtype=float), weight, queries)


def drawn(weights, num_pairs: int, seed: int = 0) -> Evidence:
    """Random gaps, beauty in points and accuracy in cosines, and the better image by the given weights."""
    rng = np.random.default_rng(seed)
    gaps = rng.normal(size=(num_pairs, 2)) * (1.0, 0.05)
    return evidence(gaps, rng.random(num_pairs) < expit(gaps @ np.array(weights)))


NONE = evidence([], [])


def test_fit_finds_the_weights_that_the_pairs_were_drawn_with():
    known = drawn((1.5, 20.0), 20_000)
    aesthetic, semantic = fit_weights(known.gaps, known.share, known.weight)
    assert aesthetic == pytest.approx(1.5, rel=0.05) and semantic == pytest.approx(20.0, rel=0.05)


def test_one_gap_alone_gives_the_log_odds_of_the_votes():
    """Three of four prefer the image that is one point more beautiful: log(3), drawn a little to zero."""
    aesthetic, semantic = fit_weights(np.array([[1.0, 0.0]] * 400), np.full(400, 0.75), np.ones(400))
    assert aesthetic == pytest.approx(np.log(3), abs=0.02) and semantic == 0.0


def test_swapping_the_images_of_a_pair_changes_nothing():
    known = drawn((1.0, 10.0), 200)
    swapped = np.where(np.arange(200) % 2, 1, -1)
    share = np.where(swapped > 0, known.share, 1 - known.share)
    again = fit_weights(known.gaps * swapped[:, None], share, known.weight)
    assert again == pytest.approx(fit_weights(known.gaps, known.share, known.weight), rel=1e-3)


def test_weight_that_the_pairs_contradict_is_zero():
    known = drawn((1.0, -20.0), 2000)
    aesthetic, semantic = fit_weights(known.gaps, known.share, known.weight)
    assert aesthetic > 0.5 and semantic == 0.0


def test_weights_stay_finite_where_the_gap_decides_every_pair():
    gaps = np.linspace(-2, 2, 100)
    aesthetic, _ = fit_weights(np.stack([gaps, 0 * gaps], axis=1), gaps > 0, np.ones(100))
    assert 1 < aesthetic < 100


def test_pair_with_more_votes_counts_more():
    gaps, share = np.array([[1.0, 0.0], [1.0, 0.0]] * 50), np.array([1.0, 0.0] * 50)
    even, _ = fit_weights(gaps, share, np.ones(100))
    heavy, _ = fit_weights(gaps, share, np.array([1.8, 0.2] * 50))
    assert even == pytest.approx(0.0, abs=1e-3) and heavy == pytest.approx(np.log(9), abs=0.15)


def test_reliability_equals_values_worked_out_by_hand():
    """Four pairs at 0.9, of which three are right, and two at 0.6, given as 0.4, of which both are right."""
    p, share = np.array([0.9] * 4 + [0.4] * 2), np.array([1.0, 1, 1, 0, 0, 0])
    error, bins = reliability(p, share, np.ones(6))
    assert [(bin["p"], bin["share"], bin["num_pairs"]) for bin in bins] == [
        (pytest.approx(0.6), 1.0, 2),
        (pytest.approx(0.9), 0.75, 4),
    ]
    assert error == pytest.approx((2 * 0.4 + 4 * 0.15) / 6)


def test_reliability_of_certain_and_of_even_pairs():
    error, bins = reliability(np.array([1.0, 0.5]), np.array([1.0, 0.5]), np.ones(2))
    assert error == 0.0 and [bin["num_pairs"] for bin in bins] == [1, 1]


def test_calibration_lowers_the_error_of_an_overconfident_scale():
    """The scale without calibration gives the usual gap one logit; the votes are nearly even."""
    known = drawn((0.2, 0.0), 2000)
    found = calibrate(known, NONE, known.gaps)
    assert found.ece is not None and found.ece < 0.03 < 0.1 < found.ece_before
    assert found.source == "votes" and found.num_pairs == 2000
    assert sum(bin["num_pairs"] for bin in found.bins) == 2000


def test_error_is_measured_on_queries_that_were_left_out():
    """Two gaps that say nothing about forty votes: weights fitted on all of them would look better."""
    known = drawn((0.0, 0.0), MIN_PAIRS, seed=1)
    weights = fit_weights(known.gaps, known.share, known.weight)
    in_sample, _ = reliability(expit(known.gaps @ np.array(weights)), known.share, known.weight)
    found = calibrate(known, NONE, known.gaps)
    assert found.ece is not None and found.ece > in_sample


def test_votes_precede_order_consistency_if_there_are_enough():
    votes, consistency = drawn((2.0, 0.0), MIN_PAIRS), drawn((0.5, 0.0), 100)
    consistency = Evidence("order consistency", *list(vars(consistency).values())[1:])
    assert calibrate(votes, consistency, votes.gaps).source == "votes"
    few = drawn((2.0, 0.0), MIN_PAIRS - 1)
    found = calibrate(few, consistency, votes.gaps)
    assert (found.source, found.num_pairs) == ("order consistency", 100)


def test_without_pairs_nothing_is_calibrated_and_the_report_says_what_is_missing():
    gaps = np.array([[3.0, 0.04], [-3.0, 0.04], [3.0, 0.0], [3.0, 0.0]])
    found = calibrate(NONE, drawn((1.0, 1.0), MIN_PAIRS - 1), gaps)
    assert found.report()["source"] == "none" and "--votes" in found.report()["remedy"]
    assert "not calibrated, because only 39 pairs" in found.sentence()
    # The root mean square gaps are 3 and 0.028: each is one logit.
    assert found.weights == (pytest.approx(1 / 3), pytest.approx(1 / np.sqrt(0.0008)))


def test_one_query_can_be_calibrated_on():
    known = drawn((1.0, 0.0), 100)
    alone = Evidence("votes", known.gaps, known.share, known.weight, np.array(["q"] * 100, dtype=object))
    assert calibrate(alone, NONE, known.gaps).ece is not None


def test_scores_that_predict_nothing_are_reported():
    assert "every preference is a near tie" in Calibration("votes", (0.0, 0.0), 50, 0.1, 0.2).sentence()


def test_pair_that_the_scores_contradict_is_a_tie():
    p = Calibration("votes", (1.0, 2.0)).p_winner(np.array([[0.0, 0.0], [1.0, 0.5], [-3.0, 1.0]]))
    assert p.tolist() == [0.5, pytest.approx(expit(2.0)), 0.5]


def stored(store, known: Evidence, run_id: str = RUN) -> None:
    """Preferences with these gaps, and the share of orders in which the judge repeats them outright."""
    rows = [
        dict(
            query=known.queries[number], rephrased="", style="original", winner=f"w{number}", loser="l",
            p_winner=None, aesthetic_gap=gaps[0], semantic_gap=gaps[1], overall=known.share[number],
            winner_cell=[0, 0], loser_cell=[0, 1], source="lmm_score", consistent=True, judge="j",
            run_id=run_id,
        )
        for number, gaps in enumerate(known.gaps.tolist())
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, SCHEMAS["preferences"])
    store.merge("preferences", table, on=PREFERENCE_KEY)


def test_run_is_calibrated_on_order_consistency_and_others_are_left_alone(store):
    known = drawn((1.5, 20.0), 400)
    stored(store, known)
    stored(store, known, "another")
    found = calibrate_run(store, RUN, NONE)
    assert found.source == "order consistency" and found.num_pairs == 400
    gaps, p_winner, _ = read_run(store, RUN)
    assert p_winner == pytest.approx(found.p_winner(gaps), abs=1e-6) and p_winner.min() == 0.5
    assert store.read("preferences", ["p_winner"], "run_id = 'another'")["p_winner"].null_count == 400


def test_calibrating_again_writes_nothing_until_votes_come(store):
    stored(store, drawn((1.5, 20.0), 400))
    calibrate_run(store, RUN, NONE)
    version = store.open("preferences").version
    calibrate_run(store, RUN, NONE)
    assert store.open("preferences").version == version
    found = calibrate_run(store, RUN, drawn((0.3, 0.0), 400))
    assert found.source == "votes" and store.open("preferences").version > version
    gaps, p_winner, _ = read_run(store, RUN)
    assert p_winner == pytest.approx(found.p_winner(gaps), abs=1e-6)


def test_new_rows_of_a_run_are_calibrated_too(store):
    stored(store, drawn((1.5, 20.0), 100))
    calibrate_run(store, RUN, NONE)
    more = drawn((1.5, 20.0), 150, seed=3)
    stored(store, more)  # 100 of its rows have the keys of rows that are there
    calibrate_run(store, RUN, NONE)
    assert not np.isnan(read_run(store, RUN)[1]).any()
