"""Whether the judge agrees with people: margins and agreement worked out by hand."""

import numpy as np
import pytest

from jobs.evaluate import hpir
from jobs.evaluate.figures import judge_votes, protocols, winrate
from jobs.evaluate.hpir import Row, Votes
from jobs.evaluate.inputs import VoteTable
from jobs.evaluate.language_models import Judgements

NAN = float("nan")
# People find group A more accurate (3 to 2), and B more beautiful (5 to 0).
FIRST = Row("q", ("a", "b"), ("c", "d"), {"accuracy": Votes(3, 2), "aesthetic": Votes(0, 5)})
PAIR = Row("r", ("e",), ("f",), {"aesthetic": Votes(3, 1)})
TABLES = [VoteTable("rows", (FIRST,), 0, 0), VoteTable("pairs", (PAIR,), 0, 0)]
EVERY = ("ranker", "scorer", "cp_scorer", "sheet")


def ratings(a, b):
    """Ratings of A and B shown together, the same in both orders."""
    return np.array([[a, b], [a, b]], float)


JUDGEMENTS = Judgements(
    aesthetics={("q", "a"): 4.0, ("q", "b"): 2.0, ("q", "c"): 1.0, ("q", "d"): 1.0}
    | {("r", "e"): 5.0, ("r", "f"): NAN},
    accuracy={("q", "a"): 5.0, ("q", "b"): 5.0, ("q", "c"): 1.0, ("q", "d"): 1.0},
    compared={
        ("accuracy", "q", "a", "c"): (0.9, 0.7),
        ("accuracy", "q", "b", "d"): (0.5, 0.1),
        ("aesthetics", "q", "a", "c"): (0.9, 0.9),
        ("aesthetics", "q", "b", "d"): (NAN, 0.0),
        ("aesthetics", "r", "e", "f"): (0.8, 0.2),
    },
    together={
        ("accuracy", "q", "a", "c"): ratings(5, 1),
        ("accuracy", "q", "b", "d"): ratings(1, 3),
        ("aesthetics", "q", "a", "c"): ratings(1, 5),
        ("aesthetics", "q", "b", "d"): ratings(2, 3),
        ("aesthetics", "r", "e", "f"): ratings(3, 3),
    },
    sheets={
        ("accuracy", "q", ("a", "b"), ("c", "d")): (0.6, 0.9),
        ("aesthetics", "q", ("a", "b"), ("c", "d")): (0.2, 0.4),
        ("aesthetics", "r", ("e",), ("f",)): (NAN, 0.9),
    },
)


@pytest.mark.parametrize(
    ("protocol", "row", "criterion", "expected"),
    [
        ("ranker", FIRST, "accuracy", [(0.4 + 0.0) / 2, (0.2 - 0.4) / 2]),
        ("ranker", FIRST, "aesthetic", [0.4 / 2, 0.4 / 2]),  # a pair without an answer in one order counts 0
        ("ranker", PAIR, "aesthetic", [0.3, -0.3]),
        ("scorer", FIRST, "accuracy", [4.0, 4.0]),
        ("scorer", FIRST, "aesthetic", [2.0, 2.0]),
        ("scorer", PAIR, "aesthetic", [0.0, 0.0]),
        ("cp_scorer", FIRST, "accuracy", [(4 - 2) / 2, (4 - 2) / 2]),
        ("cp_scorer", FIRST, "aesthetic", [(-4 - 1) / 2, (-4 - 1) / 2]),
        ("cp_scorer", PAIR, "aesthetic", [0.0, 0.0]),
        ("sheet", FIRST, "accuracy", [0.1, 0.4]),
        ("sheet", FIRST, "aesthetic", [-0.3, -0.1]),
        ("sheet", PAIR, "aesthetic", [0.0, 0.0]),
    ],
)
def test_margins_of_voted_rows_by_hand(protocol, row, criterion, expected):
    assert judge_votes.margin(protocol, row, criterion, JUDGEMENTS) == pytest.approx(expected)


def agreement(rows, protocol, consistent=True):
    one = {"protocol": protocol, "order_consistency": consistent}
    (found,) = judge_votes.with_agreement([one], rows, num_resamples=100, seed=0)
    return {criterion: figure["value"] for criterion, figure in found["people"].items()}


def test_agreement_with_people_is_by_criterion_and_weighted_by_confidence():
    rows = judge_votes.table(EVERY, TABLES, JUDGEMENTS)
    assert rows["confidence"].to_pylist() == [0.2, 1.0, 0.5]
    assert rows["majority"].to_pylist() == [1, -1, 1]
    # ranker: both orders disagree on accuracy (half); on aesthetics wrong, weight 1, and a tie, weight 0.5.
    assert agreement(rows, "ranker") == pytest.approx({"accuracy": 0.5, "aesthetic": 0.25 / 1.5}, abs=1e-6)
    assert agreement(rows, "scorer") == pytest.approx({"accuracy": 1.0, "aesthetic": 0.25 / 1.5}, abs=1e-6)
    assert agreement(rows, "cp_scorer") == pytest.approx({"accuracy": 1.0, "aesthetic": 1.25 / 1.5}, abs=1e-6)
    assert agreement(rows, "sheet") == pytest.approx({"accuracy": 1.0, "aesthetic": 1.25 / 1.5}, abs=1e-6)
    # A question about one criterion is compared with the votes on that criterion; nobody votes on diversity.
    assert agreement(rows, "sheet, aesthetics") == pytest.approx({"aesthetic": 1.25 / 1.5}, abs=1e-6)
    assert agreement(rows, "sheet, diversity") == {}
    assert agreement(judge_votes.table(EVERY, [], JUDGEMENTS), "ranker") == {}


def test_every_question_about_voted_rows_is_one_that_a_margin_needs():
    asked = judge_votes.questions(EVERY, TABLES)
    assert set(asked.comparisons) == JUDGEMENTS.compared.keys()
    assert set(asked.together) == JUDGEMENTS.together.keys()
    assert set(asked.sheets) == JUDGEMENTS.sheets.keys()
    assert set(asked.aesthetics) == JUDGEMENTS.aesthetics.keys()
    assert set(asked.accuracy) == JUDGEMENTS.accuracy.keys()
    assert judge_votes.questions(["sheet"], TABLES).tasks().num_rows == len(JUDGEMENTS.sheets)


def test_sheet_is_won_only_if_both_orders_agree():
    rows = [(query, ("a", "b"), ("c", "d")) for query in ("won", "lost", "tied", "unanswered")]
    rows += [("same", ("a",), ("a",)), ("empty", (), ("a",))]
    answers = {
        "won": {"accuracy": (0.9, 0.8), "aesthetics": (0.8, 0.6), "diversity": (0.4, 0.4)},
        "lost": dict.fromkeys(("accuracy", "aesthetics", "diversity"), (0.1, 0.3)),
        "tied": dict.fromkeys(("accuracy", "aesthetics", "diversity"), (0.9, 0.3)),
        "unanswered": dict.fromkeys(("accuracy", "aesthetics", "diversity"), (0.9, NAN)),
    }
    sheets = {
        (criterion, query, ("a", "b"), ("c", "d")): answer
        for query, of_query in answers.items()
        for criterion, answer in of_query.items()
    }
    judgements = Judgements(sheets=sheets)
    margins = protocols.sheet_margins(rows, judgements)
    assert margins[0] == pytest.approx([(0.4 + 0.3 - 0.1) / 3, (0.3 + 0.1 - 0.1) / 3])
    assert winrate.outcomes(margins).tolist() == [1, -1, 0, 0, 0, 0]
    diversity = protocols.sheet_margins(rows, judgements, ["diversity"])
    assert winrate.outcomes(diversity).tolist() == [-1, -1, 0, 0, 0, 0]
    asked = protocols.questions(["sheet"], [query for query, _, _ in rows], [], rows)
    assert set(asked.sheets) == sheets.keys()


def test_histogram_of_confidence_by_hand():
    votes = [Votes(5, 5), Votes(3, 2), Votes(4, 3), Votes(7, 0), Votes(0, 0), Votes(5, 1, tie=4)]
    # Margins: 0, 0.2, 1/7, 1, 0 (nobody voted), 0.4.
    found = hpir.confidence_histogram(votes)
    assert found["edges"] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert found["shares"] == pytest.approx([3 / 6, 1 / 6, 1 / 6, 0, 1 / 6], abs=1e-6)
    assert hpir.confidence_histogram([])["shares"] == [0.0] * hpir.NUM_BINS
