"""The partial order, against arrays worked out by hand."""

import numpy as np
import pytest

from jobs.label.pairs import (
    Grid,
    Preference,
    cut,
    dominance,
    log_odds,
    order_rows,
    preferences,
    strengths,
    thin,
)


def test_thin_takes_every_stride_th_of_the_semantic_order():
    scores = [0.1, 0.9, 0.3, 0.8, 0.2, 0.7, 0.6, 0.5]  # order: 1 3 5 6 7 2 4 0
    assert thin(scores, Grid(rows=2, columns=2, stride=2)) == [1, 5, 7, 4]
    assert thin(scores, Grid(rows=1, columns=2, stride=3)) == [1, 6]


def test_thin_keeps_the_list_order_of_equal_scores():
    assert thin([0.5, 0.9, 0.5, 0.5], Grid(rows=2, columns=2, stride=1)) == [1, 0, 2, 3]


def test_thin_lowers_the_stride_when_there_are_few_images():
    falling = [-i for i in range(10)]
    assert thin(falling, Grid(rows=2, columns=2, stride=4)) == [0, 3, 6, 9]
    assert thin(falling[:3], Grid(rows=2, columns=2, stride=4)) == [0, 1, 2]
    assert thin([], Grid(rows=2, columns=2, stride=4)) == []


def test_cut_may_leave_a_short_last_row():
    assert cut(5, columns=2) == [[0, 1], [2, 3], [4]]
    assert cut(0, columns=2) == []


def test_rows_are_ordered_by_aesthetics_and_ties_keep_their_order():
    assert order_rows([[0, 1, 2], [3, 4]], [1.0, 3.0, 3.0, 2.0, 5.0]) == [[1, 2, 0], [4, 3]]


def test_dominance_of_two_by_two():
    assert set(dominance([2, 2])) == {
        ((0, 0), (0, 1)),
        ((0, 0), (1, 0)),
        ((0, 0), (1, 1)),
        ((0, 1), (1, 1)),
        ((1, 0), (1, 1)),
    }


def test_dominance_of_a_short_last_row():
    assert set(dominance([2, 1])) == {((0, 0), (0, 1)), ((0, 0), (1, 0))}


@pytest.mark.parametrize(("u", "v", "count"), [(5, 5, 200), (1, 2, 1), (3, 4, 48), (2, 2, 5)])
def test_number_of_pairs_follows_the_formula(u, v, count):
    assert len(dominance([v] * u)) == count == u * (u + 1) // 2 * v * (v + 1) // 2 - u * v


def by_images(pairs: list[Preference]) -> dict[tuple[int, int], Preference]:
    return {(pair.winner, pair.loser): pair for pair in pairs}


def test_preferences_of_two_rows():
    semantic, aesthetic = [9.0, 8.0, 2.0, 1.0], [1.0, 3.0, 2.0, 2.0]
    rows = order_rows(cut(4, 2), aesthetic)  # [[1, 0], [2, 3]]
    pairs = by_images(preferences(rows, semantic, aesthetic))
    assert set(pairs) == {(1, 0), (1, 2), (1, 3), (0, 3), (2, 3)}
    gaps = {pair: (found.aesthetic_gap, found.semantic_gap) for pair, found in pairs.items()}
    # In (0, 3) the image in the better row wins although it is uglier.
    assert gaps == {(1, 0): (2, -1), (1, 2): (1, 6), (1, 3): (1, 7), (0, 3): (-1, 8), (2, 3): (0, 1)}
    assert (pairs[1, 3].winner_cell, pairs[1, 3].loser_cell) == ((0, 0), (1, 1))


def test_comparison_replaces_scores_and_a_missing_one_gives_no_pair():
    judged = {(0, 1): (0.8, False), (1, 2): (float("nan"), False)}
    pairs = by_images(preferences([[0, 1, 2]], [0.0] * 3, [3.0, 2.0, 1.0], judged=judged))
    assert set(pairs) == {(0, 1), (0, 2)}
    assert pairs[0, 1].aesthetic_gap == pytest.approx(np.log(4)) and not pairs[0, 1].consistent
    assert pairs[0, 2].aesthetic_gap == 2.0 and pairs[0, 2].consistent


def test_grid_of_five_by_five_gives_two_hundred_different_pairs():
    rng = np.random.default_rng(0)
    semantic, aesthetic = np.sort(rng.normal(size=25))[::-1], rng.normal(size=25)
    pairs = preferences(order_rows(cut(25, 5), aesthetic), semantic, aesthetic)
    assert len(pairs) == 200 == len(by_images(pairs)) and all(pair.winner != pair.loser for pair in pairs)


def test_differences_of_strengths_are_the_log_odds_of_a_row_that_agrees_with_itself():
    """Bradley-Terry with the strengths 1, 0 and -2: each comparison has the log-odds of their difference."""
    true = [1.0, 0.0, -2.0]
    judged = {
        (a, b): (1 / (1 + np.exp(true[b] - true[a])), True) for a in range(3) for b in range(3) if a != b
    }
    found = strengths(3, judged)
    assert np.diff(found).tolist() == pytest.approx(np.diff(true).tolist())


def test_strength_without_an_answer_is_zero():
    nan = float("nan")
    judged = {(0, 1): (0.9, True), (1, 0): (0.1, True), (0, 2): (nan, False), (2, 0): (nan, False)}
    even = log_odds(0.9) / 2
    assert strengths(4, judged).tolist() == pytest.approx([even, -even, 0.0, 0.0])
