"""The response while no replica is up."""

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from cluster.unavailable import BODY, SECURITY_HEADERS, middlewares
from serve_app.models import ErrorBody


def client() -> TestClient:
    routes = [
        Route(path, lambda request: PlainTextResponse("passed on")) for path in ("/v1/search", "/-/healthz")
    ]
    return TestClient(Starlette(routes=routes, middleware=middlewares()))


def test_all_paths_but_serves_own_get_a_503_with_retry_after(monkeypatch):
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    response = client().get("/v1/search")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "no_replica")
    assert response.headers["retry-after"] == "2"
    assert all(response.headers[name] == value for name, value in SECURITY_HEADERS.items())
    assert client().get("/-/healthz").text == "passed on"


def test_its_body_has_the_form_of_all_other_errors():
    assert ErrorBody.model_validate(BODY, extra="forbid").model_dump() == BODY


@pytest.mark.parametrize("value", [None, "0"])
def test_without_haproxy_requests_are_passed_on(value, monkeypatch):
    monkeypatch.delenv("RAY_SERVE_ENABLE_HA_PROXY", raising=False)
    if value is not None:
        monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", value)
    assert client().get("/v1/search").text == "passed on"
