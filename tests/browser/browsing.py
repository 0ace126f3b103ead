"""Helpers of the page's tests: a fake service with known ranks, and functions that wait for the page."""

import asyncio
import hashlib
import io
import time
from types import SimpleNamespace

from fake_service import PROMPT_AXIS, words_read
from PIL import Image

from serve_app.errors import ApiError
from serve_app.models import FeedbackResponse, Heatmap
from serve_app.search.service import SearchAnswer

NUM_IMAGES = 30
ORDERS = {
    "live": [5, 0, 1, 29, 3, 2, 4],
    "baseline": list(range(NUM_IMAGES)),
    "suffix": [3, 0, 1],
    "axis": [4, 0, 1],
    "rephrase": [6, 0, 1],
    "teacher": [7, 5, 0],
}
REPHRASED = {
    "suffix": "{}, golden light",
    "rephrase": "a photograph of {}",
    "teacher": "a photograph of {}",
}
HOSTILE = '<img src=x onerror="document.title=1">'
TASTES = [
    {"name": "light", "less": "darker", "more": "brighter"},
    {"name": "calm", "less": "livelier", "more": "calmer"},
]


def picture(number):
    return Image.new("RGB", (120, 90 + number), (9 * number % 256, 120, 255 - 8 * number))


def image_id(number):
    return hashlib.sha256(f"image {number}".encode()).hexdigest()


def encoder_of(name):
    return hashlib.sha256(name.encode()).hexdigest()[:16]


class FakePageService:
    """A service whose baseline ranks images 0, 1, 2, ... and whose live system starts with 5, 0, 1, 29.

    A search with beauty gets the reverse order. `searches`, `events` and `heatmaps` record the requests. A
    search_id is "<system> <query> <offset>".
    """

    def __init__(self):
        self.examples, self.tastes, self.delay_s, self.fail = ["a red boat", "two cats"], [], 0.0, False
        self.system_names, self.suffix = ("live", "baseline"), None
        self.systems = {name: self.system(name, NUM_IMAGES) for name in self.system_names}
        self.searches, self.clients, self.events, self.heatmaps = [], set(), [], []
        self.num_refusals = 0  # searches still to be refused because the teacher is starting
        # Overrides `encoder_of(system)`.
        self.encoders = dict.fromkeys(("suffix", "axis", "rephrase", "teacher"), encoder_of("baseline"))

    def system(self, name, num_rows):
        record = SimpleNamespace(encoder=encoder_of(name), parent="")
        return SimpleNamespace(record=record, num_rows=num_rows, recall_at_10=1.0, prompt_axis=PROMPT_AXIS)

    def axis(self, system):
        return PROMPT_AXIS

    def unready_reason(self):
        return ""

    async def search(self, request, client):
        self.searches.append(request)
        self.clients.add(client)
        await asyncio.sleep(self.delay_s)
        if self.fail:
            raise RuntimeError("a failure of the server")
        if request.system in ("rephrase", "teacher") and self.num_refusals > 0:
            self.num_refusals -= 1
            headers = {"Retry-After": "1"}
            raise ApiError(503, "teacher_starting", "The teacher is starting.", headers=headers)
        order = ORDERS[request.system] if request.query != "nothing" else []
        order = order[::-1] if request.beauty else order
        start = int(request.cursor or 0)
        caption = HOSTILE if request.query == "hostile" else f"{request.query}, picture"
        rows = [
            {
                "image_id": image_id(number),
                "score": 0.9 - 0.02 * rank if request.system != "teacher" else 4.5 - rank,
                "caption": f"{caption} {number}",
                "width_px": 120,
                "height_px": 90 + number,
            }
            for rank, number in enumerate(order)
        ][start : start + request.k]
        end = start + request.k
        return SearchAnswer(
            search_id=f"{request.system} {request.query} {start}",
            query=request.query,
            query_words=words_read(request.query),
            negatives_words=[words_read(text) for text in request.negatives],
            rephrased=REPHRASED.get(request.system, "").format(request.query),
            system=request.system,
            encoder=self.encoders.get(request.system, encoder_of(request.system)),
            rows=rows,
            next=str(end) if end < len(order) else "",
            timings_ms={"encode": 1.25, "search": 2.5, "total": 3.75},
        )

    def heatmap(self, image, query, system):
        self.heatmaps.append((image, query, system))
        values = [[0.1 + 0.02 * (row + column) for column in range(7)] for row in range(5)]
        return Heatmap(encoder=encoder_of(system), query_words=words_read(query), values=values)

    async def feedback(self, event, client, group):
        known = event in self.events
        self.events.append(event)
        return FeedbackResponse(event_id="e", new=not known, num_preferences=0)

    def delete(self, image):
        raise KeyError(image)

    def preview(self, image):
        out = io.BytesIO()
        {image_id(number): picture(number) for number in range(NUM_IMAGES)}[image].save(out, "JPEG")
        return out.getvalue()


def search(page, query):
    page.fill("#query", query)
    page.press("#query", "Enter")
    shown(page, query)


def shown(page, query):
    """Wait for the results of the query."""
    page.wait_for_selector(f"body.searched .caption:has-text('{query}, picture 0')", state="attached")
    settled(page)


def settled(page):
    page.wait_for_selector(".column[aria-busy]", state="detached")


def until(condition, seconds=10.0):
    """Wait until `condition()` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.02)


def texts(page, selector):
    return [element.inner_text() for element in page.query_selector_all(selector)]
