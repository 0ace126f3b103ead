"""What is answered while no replica can."""

from email.parser import Parser

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from cluster.proxy import ERROR_FILES, HAPROXY_DEFAULTS
from serve_app.http import errors
from serve_app.http.middleware import BODY_TIMEOUT_S, SECURITY_HEADERS
from serve_app.http.unavailable import RETRY_AFTER_S, middlewares


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


@pytest.mark.parametrize(
    ("status", "code", "message", "headers"),
    [
        (400, "bad_request", "The request is not valid HTTP.", {}),
        (408, "body_too_slow", f"The body did not arrive within {BODY_TIMEOUT_S:g} s.", {}),
        (
            503, "no_replica", f"The search is starting: ask again in {RETRY_AFTER_S} s.",
            {"Retry-After": str(RETRY_AFTER_S)},
        ),
    ],
)  # fmt: skip
def test_haproxy_answers_as_we_do(status, code, message, headers):
    head, _, body = (ERROR_FILES / f"{code}.http").read_text().partition("\n\n")
    first, _, rest = head.partition("\n")
    assert first.split()[:2] == ["HTTP/1.1", str(status)]
    assert dict(Parser().parsestr(rest)) == {"Content-Type": "application/json"} | headers | SECURITY_HEADERS
    assert body.strip().encode() == errors.body(status, code, message).body


def test_haproxy_waits_as_long_as_we_do_and_finds_its_answers():
    assert f"timeout http-request {BODY_TIMEOUT_S:g}s" in HAPROXY_DEFAULTS
    files = {line.split('"')[1] for line in HAPROXY_DEFAULTS if line.startswith("errorfile")}
    assert files == {str(path) for path in ERROR_FILES.glob("*.http")}
