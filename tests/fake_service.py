"""A fake search service behind the real routes, so that tests of the endpoint need no model."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import uvicorn
from starlette.testclient import TestClient

from actors.nulls.axis import Axis
from cluster.profile import Serve
from cluster.tables import EncoderRecord
from serve_app.errors import ApiError
from serve_app.http.api import make_api
from serve_app.models import FeedbackResponse, Heatmap, WordsRead
from serve_app.search.service import SearchAnswer

IMAGE_IDS = [hashlib.sha256(f"image {index}".encode()).hexdigest() for index in range(30)]
MAX_WORDS = 40  # of a text that the fake encoder reads
PROMPT_AXIS = Axis(np.ones(4, np.float32) / 2, 0.5)
JPEG = b"\xff\xd8\xff\xe0 not a real picture"


@dataclass
class FakeService:
    """Returns `IMAGE_IDS` in order for every search.

    `searches` records each request with its client, `feedback_senders` the client and group of each event.
    """

    examples: list[str] = field(default_factory=lambda: ["a red boat"])
    searches: list = field(default_factory=list)
    feedback_senders: list = field(default_factory=list)
    tastes: list[dict] = field(
        default_factory=lambda: [{"name": "brightness", "less": "darker", "more": "brighter"}]
    )

    def __post_init__(self):
        record = EncoderRecord(encoder="e" * 16, checkpoint="nowhere", dim=4)
        system = SimpleNamespace(
            record=record, num_rows=len(IMAGE_IDS), recall_at_10=1.0, prompt_axis=PROMPT_AXIS
        )
        self.systems = {"live": system, "baseline": system}
        self.system_names = tuple(self.systems)

    suffix = None

    def axis(self, system):
        return PROMPT_AXIS

    def unready_reason(self):
        return ""

    async def search(self, request, client):
        self.searches.append((request, client))
        if request.query == "break":
            raise ZeroDivisionError("an unexpected exception")
        start = int(request.cursor) if request.cursor.isdecimal() and len(request.cursor) < 5 else 0
        page = enumerate(IMAGE_IDS[start : start + request.k], start=start)
        rows = [
            {"image_id": image_id, "score": 1 - index / 100, "caption": f"picture {index}",
             "width_px": 64, "height_px": 48}
            for index, image_id in page
        ]  # fmt: skip
        end = start + request.k
        return SearchAnswer(
            search_id="search-1",
            query=request.query,
            query_words=words_read(request.query),
            negatives_words=[words_read(text) for text in request.negatives],
            rephrased="",
            system=request.system,
            encoder="e" * 16,
            rows=rows,
            next=str(end) if end < len(IMAGE_IDS) else "",
            timings_ms={"total": 1.5},
        )

    def preview(self, image_id):
        if image_id not in IMAGE_IDS:
            raise KeyError(image_id)
        return JPEG

    def heatmap(self, image_id, text, system):
        if image_id not in IMAGE_IDS:
            raise KeyError(image_id)
        if system not in self.systems:
            raise ApiError(422, "unknown_system", "There is no such system.", "system")
        return Heatmap(encoder="e" * 16, query_words=words_read(text), values=[[0.1, 0.2], [0.3, 0.4]])

    async def feedback(self, event, client, group):
        self.feedback_senders.append((client, group))
        return FeedbackResponse(event_id="event-1", new=True, num_preferences=2)

    def delete(self, image_id):
        if image_id not in IMAGE_IDS:
            raise KeyError(image_id)
        return 3


def words_read(text: str) -> WordsRead:
    return WordsRead(given=len(text.split()), read=min(len(text.split()), MAX_WORDS))


def fake_app(service=None, **settings):
    """The ASGI app over a fake service, with these settings of the profile's `serve`."""
    return make_api(service or FakeService(), Serve(**settings))


def local_client(app, **options: Any) -> TestClient:
    """A test client of the app that names localhost as its host, as a server without keys requires."""
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False, **options)


@contextmanager
def http_server(app) -> Iterator[str]:
    """Serve the app over real HTTP on a free port of 127.0.0.1, in a thread; yields its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)
