"""What is answered while no replica can."""

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serve_app.unavailable import middlewares


def test_everything_but_serves_own_paths_is_refused_with_a_way_out():
    routes = [
        Route(path, lambda request: PlainTextResponse("behind")) for path in ("/v1/search", "/-/healthz")
    ]
    client = TestClient(Starlette(routes=routes, middleware=middlewares()))
    answer = client.get("/v1/search")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_replica")
    assert answer.headers["retry-after"] == "2"
    assert client.get("/-/healthz").text == "behind"
