"""The teacher's cascade with fake engines. No Ray, no model."""

import asyncio
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from actors.images import preview_jpeg
from cluster.profile import Label
from serve_app.errors import ApiError
from serve_app.models import BaseSearchRequest
from serve_app.search.batched_search import ResultPage
from serve_app.search.step_timer import StepTimer
from serve_app.search.teacher import JudgeEngine, Teacher

BEAUTY = {"a": 2.0, "b": 4.0, "c": 3.0}


class Remote:
    """One method of a deployment's handle."""

    def __init__(self, answer) -> None:
        self._answer = answer

    async def remote(self, *args):
        return self._answer(*args)


def engines() -> dict[str, SimpleNamespace]:
    """A judge that reads an image's aesthetics from its preview; every image is accurate."""

    def rate(query, previews):
        aesthetics = [BEAUTY[preview.decode()] for preview in previews]
        return np.array([aesthetics, [5.0] * len(previews)])

    ping = Remote(lambda: True)
    return {
        "rephraser": SimpleNamespace(ping=ping, rephrase=Remote(lambda query: (f"{query}, golden hour", ""))),
        "judge": SimpleNamespace(ping=ping, rate=Remote(rate)),
    }


def results(retrieved: str, stored: str) -> list[str]:
    """The order of the images `retrieved`, of which the table `images` holds those that are `stored`."""

    async def encode(text):
        return np.ones(2, np.float32)

    async def search(item):
        rows = [{"image_id": name, "score": 0.5, "vector": np.ones(2, np.float32)} for name in retrieved]
        return ResultPage(rows[: item[1].k], 1)

    def preview(image_id):
        if image_id not in stored:
            raise KeyError(image_id)
        return image_id.encode()

    async def run():
        teacher = Teacher(**engines(), label=Label(semantic="judge"))
        system = SimpleNamespace(encode_text=encode, search=search)
        timer = StepTimer(SimpleNamespace(observe=lambda *labels: None), "teacher")
        return await teacher.answer(BaseSearchRequest(query="a boat"), system, "", preview, timer)

    ranked = asyncio.run(run())
    assert ranked.rephrased == "a boat, golden hour"
    return [row["image_id"] for row in ranked.rows]


def test_results_are_ordered_by_aesthetics():
    assert results("abc", stored="abc") == ["b", "c", "a"]


def test_vector_without_its_image_is_skipped():
    """Ingest writes vectors first, and may still run or have been killed."""
    assert results("abc", stored="ac") == ["c", "a"]
    assert results("abc", stored="") == []


def test_image_without_a_readable_preview_gets_no_rating():
    jpeg = preview_jpeg(Image.new("RGB", (32, 32), "red"))
    engine = JudgeEngine.__new__(JudgeEngine)
    engine._lock = threading.Lock()
    engine._judge = SimpleNamespace(
        aesthetics=lambda images: np.full(len(images), 4.0),
        accuracy=lambda queries, images: np.full(len(images), 3.0),
    )
    rated = asyncio.run(engine.rate("a boat", [jpeg, b"no image", jpeg]))
    assert np.array_equal(rated, [[4.0, np.nan, 4.0], [3.0, np.nan, 3.0]], equal_nan=True)
    assert asyncio.run(engine.rate("", [jpeg])).tolist() == [[4.0]]


def test_rephrasing_wakes_the_language_model_alone():
    judge = SimpleNamespace(ping=Remote(lambda: pytest.fail("the judge was started")))
    teacher = Teacher(**{**engines(), "judge": judge}, label=Label())
    timer = StepTimer(SimpleNamespace(observe=lambda *labels: None), "rephrase")
    assert asyncio.run(teacher.rephrase("a boat", timer)) == "a boat, golden hour"
    assert set(timer.finish()) == {"rephrase", "total"}


@pytest.mark.parametrize("fields", [{"beauty": 0.5}, {"negatives": ["fog"]}, {"tastes": {"warmth": 1.0}}])
def test_teacher_refuses_everything_but_words_and_filters(fields):
    request = BaseSearchRequest(query="a boat", **fields)
    teacher = Teacher(**engines(), label=Label())
    with pytest.raises(ApiError) as refusal:
        asyncio.run(teacher.answer(request, SimpleNamespace(), "", lambda name: b"", SimpleNamespace()))
    assert (refusal.value.status_code, refusal.value.code) == (422, "teacher_takes_words")
