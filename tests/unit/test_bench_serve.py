"""What `kallos bench serve` reports of the soak, over answers that are made up."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from lab.bench.serve import job as serve
from lab.bench.serve.load import Answer


def test_failures_of_searches_and_of_feedback_are_told_apart(monkeypatch):
    searched = [Answer(status, 100.0 + place, 0.5, None) for place, status in enumerate((200, 503, 503, 0))]
    told = [
        Answer(200, 100.0, 0.1, {"event_id": "kept"}),
        Answer(200, 101.0, 0.1, {"event_id": "lost"}),
        Answer(429, 102.0, 0.1, None),
        Answer(500, 106.0, 0.1, None),
    ]

    async def search_and_tell(*args):
        return searched, told

    monkeypatch.setattr(serve, "_search_and_tell", search_and_tell)
    store = SimpleNamespace(read=lambda *args: pa.table({"event_id": ["kept"]}))
    report = serve.soak(
        serve.BenchServeConfig(soak_s=0.0),
        SimpleNamespace(replicas=lambda: []),
        SimpleNamespace(store=store),
        np.random.default_rng(0),
    )
    assert report["searches"] == 4 and report["searches_failed_by_status"] == {"503": 2, "no answer": 1}
    assert report["feedback_failed_by_status"] == {"500": 1}
    assert (report["feedback_answered"], report["feedback_lost"]) == (2, 1)
    assert report["longest_outage_s"] == 4.6, "of both"
