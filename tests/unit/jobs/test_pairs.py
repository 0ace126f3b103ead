"""The partial order, against arrays worked out by hand."""

import math

import numpy as np
import pytest

from cluster.schemas import near_ties
from jobs.label.pairs import (
    Grid,
    Preference,
    cut,
    dominance,
    order_rows,
    p_dominance,
    preferences,
    spread,
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


def test_probability_is_bradley_terry_with_a_floor_of_one_half():
    assert p_dominance(0.0, 0.0) == 0.5
    assert p_dominance(1.0, 1.0) == pytest.approx(1 / (1 + math.exp(-2.0)))
    assert p_dominance(-3.0, 1.0) == 0.5


def by_images(pairs: list[Preference]) -> dict[tuple[int, int], Preference]:
    return {(pair.winner, pair.loser): pair for pair in pairs}


def test_preferences_of_two_rows():
    semantic, aesthetic = [9.0, 8.0, 2.0, 1.0], [1.0, 3.0, 2.0, 2.0]
    rows = order_rows(cut(4, 2), aesthetic)  # [[1, 0], [2, 3]]
    pairs = by_images(preferences(rows, semantic, aesthetic, semantic_unit=6.0, aesthetic_unit=1.0))
    assert set(pairs) == {(1, 0), (1, 2), (1, 3), (0, 3), (2, 3)}
    assert pairs[1, 0].p_winner == pytest.approx(1 / (1 + math.exp(-(2.0 - 1 / 6))))
    assert pairs[1, 2].p_winner == pytest.approx(1 / (1 + math.exp(-(1.0 + 1.0))))
    # Equal beauty in one row: only the small difference in accuracy decides.
    assert pairs[2, 3].p_winner == pytest.approx(1 / (1 + math.exp(-1 / 6)))
    # The image in the better row wins although it is uglier: 8/6 - 1 > 0.
    assert pairs[0, 3].p_winner == pytest.approx(1 / (1 + math.exp(-(8 / 6 - 1.0))))
    assert (pairs[1, 3].winner_cell, pairs[1, 3].loser_cell) == ((0, 0), (1, 1))
    assert near_ties(np.array([pair.p_winner for pair in pairs.values()])).sum() == 1


def test_comparison_replaces_scores_and_a_missing_one_gives_no_pair():
    judged = {(0, 1): (0.8, False), (1, 2): (float("nan"), False)}
    pairs = by_images(
        preferences([[0, 1, 2]], [0.0] * 3, [3.0, 2.0, 1.0], semantic_unit=1, aesthetic_unit=1, judged=judged)
    )
    assert set(pairs) == {(0, 1), (0, 2)}
    assert pairs[0, 1].p_winner == pytest.approx(0.8) and not pairs[0, 1].consistent
    assert pairs[0, 2].consistent


def test_inaccurate_image_ties_with_a_less_beautiful_accurate_one_in_its_row():
    """The less accurate image comes first in the row by beauty, and the pair is a tie."""
    (pair,) = preferences([[1, 0]], [5.0, 1.5], [3.0, 4.0], semantic_unit=0.5, aesthetic_unit=0.5)
    assert (pair.winner, pair.p_winner) == (1, 0.5)


def test_every_preference_has_two_images_and_a_probability_of_at_least_one_half():
    rng = np.random.default_rng(0)
    semantic, aesthetic = np.sort(rng.normal(size=25))[::-1], rng.normal(size=25)
    pairs = preferences(
        order_rows(cut(25, 5), aesthetic), semantic, aesthetic, semantic_unit=1.0, aesthetic_unit=1.0
    )
    assert len(pairs) == 200 == len(by_images(pairs))
    assert all(0.5 <= pair.p_winner <= 1.0 and pair.winner != pair.loser for pair in pairs)


def test_spread_of_equal_scores_is_one():
    assert spread([2.0, 2.0]) == 1.0
    assert spread([1.0, 3.0]) == 1.0
    assert spread([0.0, 0.2]) == pytest.approx(0.1)
