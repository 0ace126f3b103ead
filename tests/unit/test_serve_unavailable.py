"""What is answered while no replica can."""

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serve_app.guard import SECURITY_HEADERS
from serve_app.unavailable import middlewares


def client() -> TestClient:
    routes = [
        Route(path, lambda request: PlainTextResponse("behind")) for path in ("/v1/search", "/-/healthz")
    ]
    return TestClient(Starlette(routes=routes, middleware=middlewares()))


def test_everything_but_serves_own_paths_is_refused_with_a_way_out(monkeypatch):
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    answer = client().get("/v1/search")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_replica")
    assert answer.headers["retry-after"] == "2"
    assert all(answer.headers[name] == value for name, value in SECURITY_HEADERS.items())
    assert client().get("/-/healthz").text == "behind"


@pytest.mark.parametrize("value", [None, "0"])
def test_nothing_is_refused_where_serves_own_proxy_answers(value, monkeypatch):
    monkeypatch.delenv("RAY_SERVE_ENABLE_HA_PROXY", raising=False)
    if value is not None:
        monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", value)
    assert client().get("/v1/search").text == "behind"
