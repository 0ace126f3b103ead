"""The judge's prompts, and how answers become numbers, with a fake engine."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image

from actors.engine import Reply, Request, conversation
from actors.judge import (
    COMPARE,
    CRITERIA,
    DIGITS,
    SHEET_CRITERIA,
    Judge,
    comparison,
    contact_sheet,
    expected_digit,
    plain,
    shrink,
)


class FakeEngine:
    """Answers by a function of the request, and records the requests."""

    def __init__(self, answer: Callable[[Request], Reply]):
        self.answer = answer
        self.requests: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        self.requests += requests
        return [self.answer(request) for request in requests]


def grey(level: int, size=(8, 8)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def level(image: Image.Image) -> int:
    return image.getpixel((0, 0))[0]


def prefers_bright(request: Request) -> Reply:
    """P(A) is the share of A in the brightness of both, plus a little for the first image."""
    a, b = (level(image) for image in request.images)
    p = min(1.0, a / (a + b) + 0.1)
    return Reply(text="A", choice_probs={"A": p, "B": 1 - p})


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(choice_probs={"1": 0.0, "2": 0.0, "3": 0.3, "4": 0.7, "5": 0.0}), 3.7),
        (Reply(choice_probs=dict.fromkeys(DIGITS, 0.2)), 3.0),
        (Reply(choice_probs={"1": 1.0, "2": 0.0, "3": 0.0, "4": 0.0, "5": 0.0}), 1.0),
        (Reply(text="5"), float("nan")),  # no probabilities: the sampled digit does not count
        (Reply(error="too long"), float("nan")),
    ],
)
def test_rating_is_the_expectation_over_digits(reply, expected):
    assert expected_digit(reply) == pytest.approx(expected, nan_ok=True)


def test_comparison_is_the_mean_of_both_orders():
    engine = FakeEngine(prefers_bright)
    result = Judge(engine).compare("overall", ["x", "x"], [grey(60), grey(50)], [grey(20), grey(50)])
    assert result.p_ab == pytest.approx([0.85, 0.6])
    assert result.p_ba == pytest.approx([1 - 0.35, 1 - 0.6])
    assert result.p == pytest.approx([0.75, 0.5])
    assert result.consistent.tolist() == [True, False]
    assert [tuple(map(level, request.images)) for request in engine.requests[:2]] == [(60, 20), (20, 60)]


def test_two_images_are_rated_together_in_both_orders():
    def rates_the_first_high(request):
        words = " ".join(part.get("text", "") for part in request.messages[-1]["content"])
        high = "picture A" in words
        return Reply(choice_probs={**dict.fromkeys(DIGITS, 0.0), ("5" if high else "2"): 1.0})

    engine = FakeEngine(rates_the_first_high)
    ratings = Judge(engine).rate_together("accuracy", ["x"], [grey(60)], [grey(20)])
    assert ratings.tolist() == [[[5.0, 2.0], [2.0, 5.0]]]
    shown = [tuple(map(level, request.images)) for request in engine.requests]
    assert shown == [(60, 20), (60, 20), (20, 60), (20, 60)]


def test_sheet_has_both_rows_in_one_image_and_fits_images_into_square_cells():
    sheet = contact_sheet([[grey(10), grey(20)], [grey(30, (8, 4))]], 16)
    assert sheet.size == (12 + 2 * 16, 2 * 16)
    at = {point: sheet.getpixel(point)[0] for point in [(20, 8), (36, 8), (20, 24), (20, 17), (36, 24)]}
    # The wide image has white above it, and the shorter row has a white cell.
    assert list(at.values()) == [10, 20, 30, 255, 255]


def test_rows_are_compared_in_both_orders_in_one_sheet():
    def prefers_the_brighter_row(request):
        (sheet,) = request.images
        above, below = (level(sheet.crop((20, top, 21, top + 1))) for top in (8, 24))
        p = min(1.0, above / (above + below) + 0.1)
        return Reply(choice_probs={"A": p, "B": 1 - p})

    engine = FakeEngine(prefers_the_brighter_row)
    rows = [grey(60)] * 5, [grey(20)] * 5
    for criterion in SHEET_CRITERIA:
        found = Judge(engine, image_px=16).compare_rows(criterion, ["x"], [rows[0]], [rows[1]])
        assert found.p_ab == pytest.approx([0.85]) and found.p_ba == pytest.approx([1 - 0.35])
    assert len(engine.requests) == 2 * len(SHEET_CRITERIA)
    prompts = {"".join(part.get("text", "") for part in r.messages[-1]["content"]) for r in engine.requests}
    assert len(prompts) == len(SHEET_CRITERIA) and all('"x"' in prompt for prompt in prompts)
    for request in engine.requests:
        conversation(request)  # raises if placeholders and images differ


def test_comparison_without_an_answer_in_one_order_is_nan():
    result = comparison(p_ab=np.array([0.9, 0.9]), p_ba=np.array([np.nan, 0.8]))
    assert np.isnan(result.p[0]) and result.p[1] == pytest.approx(0.85)
    assert result.consistent.tolist() == [False, True]


def test_accuracy_prompt_contains_the_query_of_its_image():
    engine = FakeEngine(lambda request: Reply(choice_probs=dict.fromkeys(DIGITS, 0.2)))
    ratings = Judge(engine).accuracy(["a red boat", 'say "cheese"\n now'], [grey(1), grey(2)])
    prompts = ["".join(part.get("text", "") for part in r.messages[-1]["content"]) for r in engine.requests]
    assert '"a red boat"' in prompts[0] and "\"say 'cheese' now\"" in prompts[1]
    assert ratings.tolist() == pytest.approx([3.0, 3.0])


def test_every_prompt_has_as_many_placeholders_as_images():
    engine = FakeEngine(
        lambda request: Reply(choice_probs={**dict.fromkeys(DIGITS, 0.2), "A": 0.5, "B": 0.5})
    )
    judge = Judge(engine)
    judge.aesthetics([grey(1)])
    judge.accuracy(["x"], [grey(1)])
    for criterion in CRITERIA:
        judge.compare(criterion, ["x"], [grey(1)], [grey(2)])
    assert len(engine.requests) == 2 + 2 * len(CRITERIA)
    for request in engine.requests:
        conversation(request)  # raises when they differ
        words = " ".join(part.get("text", "") for part in request.messages[-1]["content"])
        assert len(words.split()) <= 40
    assert "{query}" in COMPARE["accuracy"] and "{query}" not in COMPARE["aesthetics"]


@pytest.mark.parametrize(
    ("size", "longer_px", "expected"),
    [
        ((160, 160), 112, (112, 112)),
        ((300, 100), 112, (112, 37)),
        ((64, 32), 112, (64, 32)),
        ((9, 7), None, (9, 7)),
    ],
)
def test_shrink_never_enlarges(size, longer_px, expected):
    assert shrink(grey(3, size), longer_px).size == expected


def test_plain_removes_double_quotes_and_line_breaks():
    assert plain('a\n"b"  c') == "a 'b' c"
