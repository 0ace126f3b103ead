"""The cascade that the teacher asks for, over engines that are made up. No Ray, no model."""

import asyncio
from types import SimpleNamespace

import numpy as np

from cluster.profile import Label
from serve_app.http.models import SearchBase
from serve_app.search.batched_search import Page
from serve_app.search.clock import Clock
from serve_app.search.teacher import Teacher

BEAUTY = {"a": 2.0, "b": 4.0, "c": 3.0}


class Remote:
    """One method of a deployment's handle."""

    def __init__(self, answer) -> None:
        self._answer = answer

    async def remote(self, *args):
        return self._answer(*args)


def engines() -> dict[str, SimpleNamespace]:
    """The judge reads an image's beauty from its preview; all are accurate."""

    def rate(query, previews):
        told = [BEAUTY[preview.decode()] for preview in previews]
        return np.array([told, [5.0] * len(told)])

    ping = Remote(lambda: True)
    return {
        "rephraser": SimpleNamespace(ping=ping, rephrase=Remote(lambda query: (f"{query}, golden hour", ""))),
        "judge": SimpleNamespace(ping=ping, rate=Remote(rate)),
    }


def ask(found: str, there: str) -> list[str]:
    """The order of the images `found`, of which `images` has those that are `there`."""

    async def encode(text):
        return np.ones(2, np.float32)

    async def find(item):
        rows = [{"image_id": name, "score": 0.5, "vector": np.ones(2, np.float32)} for name in found]
        return Page(rows[: item[1].k], 1)

    def preview(image_id):
        if image_id not in there:
            raise KeyError(image_id)
        return image_id.encode()

    async def run():
        teacher = Teacher(**engines(), label=Label(semantic="judge"))
        system = SimpleNamespace(encode=encode, find=find)
        clock = Clock(SimpleNamespace(observe=lambda *told: None), "teacher")
        return await teacher.answer(SearchBase(query="a boat"), system, "", preview, clock)

    ranked = asyncio.run(run())
    assert ranked.rephrased == "a boat, golden hour"
    return [row["image_id"] for row in ranked.rows]


def test_the_images_come_in_the_order_of_their_beauty():
    assert ask("abc", there="abc") == ["b", "c", "a"]


def test_a_vector_without_its_image_is_left_out():
    """An ingest writes vectors first, and may be under way or killed."""
    assert ask("abc", there="ac") == ["c", "a"]
    assert ask("abc", there="") == []
