"""A small service in memory behind the real routes: what the endpoint's tests talk to without any model."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import uvicorn
from starlette.testclient import TestClient

from cluster.profile import Serve
from cluster.tables import EncoderRecord
from serve_app.http.api import make_api
from serve_app.http.errors import ApiError
from serve_app.http.models import FeedbackResponse, Heatmap
from serve_app.search.service import Found

IMAGE_IDS = [hashlib.sha256(f"image {number}".encode()).hexdigest() for number in range(30)]
JPEG = b"\xff\xd8\xff\xe0 not much of a picture"


@dataclass
class MadeService:
    """Finds the images in their order; `asked` holds every search with its client, `told` who gave feedback
    from where.
    """

    examples: list[str] = field(default_factory=lambda: ["a red boat"])
    asked: list = field(default_factory=list)
    told: list = field(default_factory=list)
    fault_told: str = ""
    tastes: list[dict] = field(
        default_factory=lambda: [{"name": "brightness", "less": "darker", "more": "brighter"}]
    )

    def __post_init__(self):
        record = EncoderRecord(encoder="e" * 16, checkpoint="nowhere", dim=4)
        system = SimpleNamespace(record=record, num_rows=len(IMAGE_IDS), recall_at_10=1.0)
        self.systems = {"live": system, "baseline": system}
        self.system_names = tuple(self.systems)

    def fault(self):
        return self.fault_told

    async def search(self, request, client):
        self.asked.append((request, client))
        if request.query == "break":
            raise ZeroDivisionError("a mistake of ours")
        start = int(request.cursor) if request.cursor.isdecimal() and len(request.cursor) < 5 else 0
        ids = IMAGE_IDS[start : start + request.k]
        rows = [
            {"image_id": one, "score": 1 - (start + place) / 100, "caption": f"picture {start + place}",
             "width_px": 64, "height_px": 48}
            for place, one in enumerate(ids)
        ]  # fmt: skip
        following = str(start + request.k) if start + request.k < len(IMAGE_IDS) else ""
        return Found("search-1", request.query, "", request.system, "e" * 16, rows, following, {"total": 1.5})

    def preview(self, image_id):
        if image_id not in IMAGE_IDS:
            raise KeyError(image_id)
        return JPEG

    def why(self, image_id, text, system):
        if image_id not in IMAGE_IDS:
            raise KeyError(image_id)
        if system not in self.systems:
            raise ApiError(422, "unknown_system", "There is no such system.", "system")
        return Heatmap(encoder="e" * 16, values=[[0.1, 0.2], [0.3, 0.4]])

    async def feedback(self, event, client, origin):
        self.told.append((client, origin))
        return FeedbackResponse(event_id="event-1", new=True, num_preferences=2)

    def delete(self, image_id):
        if image_id not in IMAGE_IDS:
            raise KeyError(image_id)
        return 3


def made_app(service=None, **settings):
    """The ASGI app over a made service, with these settings of the profile's `serve`."""
    return make_api(service or MadeService(), Serve(**settings))


def asking(app, **options: Any) -> TestClient:
    """A client of the app on this machine: without keys no other host is answered."""
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False, **options)


@contextmanager
def listening(app) -> Iterator[str]:
    """The app behind a real HTTP server at a free port of 127.0.0.1, in a thread; gives its address."""
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
