"""The request log: one JSON line per request, errors with their stack, nothing private."""

import json
import logging
import subprocess
import sys
import threading

import pytest
from fake_service import IMAGE_IDS, FakeService, fake_app, local_client

from cluster.profile import ROOT
from serve_app.http import logs

KEY = "k" * 16


@pytest.fixture
def lines():
    """All lines that the package logs during the test, parsed."""
    parsed = []

    class Collect(logging.Handler):
        def emit(self, record):
            parsed.append(json.loads(self.format(record)))

    handler = Collect()
    handler.setFormatter(logs.JsonFormatter())
    logger = logging.getLogger("kallos")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield parsed
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_request_is_logged_as_one_line_without_its_query(lines):
    path = f"/v1/images/{IMAGE_IDS[0]}/why"
    answer = local_client(fake_app()).get(
        path, params={"query": "secret words"}, headers={"X-Request-ID": "r-1"}
    )
    assert answer.status_code == 200
    (line,) = lines
    expected = {"logger": "kallos.access", "level": "INFO", "message": "request", "request_id": "r-1",
                "method": "GET", "path": path, "status": 200}  # fmt: skip
    assert {name: line[name] for name in expected} == expected
    assert 0 < line["milliseconds"] < 10_000 and line["time"].endswith("+00:00")
    assert "secret words" not in json.dumps(lines)


def test_client_is_logged_by_key_name_or_hashed_address(lines, tmp_path):
    (tmp_path / "keys").write_text(f"ann:{KEY}\n")
    app = fake_app(keys_file=str(tmp_path / "keys"))
    local_client(app).get("/v1/examples", headers={"Authorization": f"Bearer {KEY}"})
    for host in ("192.0.2.77", "192.0.2.77", "192.0.2.78"):
        local_client(app, client=(host, 1)).get("/healthz")
    clients = [line["client"] for line in lines]
    assert clients[0] == "key ann"
    assert clients[1] == clients[2] != clients[3] and clients[1].startswith("address ")
    assert "192.0.2" not in json.dumps(lines) and KEY not in json.dumps(lines)


def with_logging_route(app):
    from fastapi import Request

    @app.get("/logging")
    async def log_fields(request: Request) -> dict:
        request.state.log |= {"systems": ["live"], "k": 6, "num_results": 5, "queries": ["red boat"]}
        return {}

    return app


@pytest.mark.parametrize("log_queries", [False, True])
def test_routes_add_fields_and_queries_are_logged_only_if_configured(lines, log_queries):
    local_client(with_logging_route(fake_app(log_queries=log_queries))).get("/logging")
    (line,) = lines
    assert (line["systems"], line["k"], line["num_results"]) == (["live"], 6, 5)
    assert line.get("queries") == (["red boat"] if log_queries else None)


def test_unexpected_exception_is_logged_with_its_stack_and_answered_without_it(lines):
    answer = local_client(fake_app()).post(
        "/v1/search", json={"query": "break"}, headers={"X-Request-ID": "r-2"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "unexpected exception" not in answer.text
    error, request = lines
    assert error["level"] == "ERROR" and "ZeroDivisionError: an unexpected exception" in error["stack"]
    assert (error["request_id"], error["path"]) == ("r-2", "/v1/search")
    assert (request["status"], request["request_id"]) == (500, "r-2")


def test_concurrent_requests_keep_their_own_ids(lines):
    app = fake_app()
    threads = [
        threading.Thread(
            target=lambda n=n: local_client(app).get("/healthz", headers={"X-Request-ID": f"r{n}"})
        )
        for n in range(8)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(line["request_id"] for line in lines) == [f"r{number}" for number in range(8)]


def test_log_lines_go_to_stderr_once_and_as_json():
    code = (
        "import logging; from serve_app.http import logs; logs.configure(); logs.configure();"
        "logging.getLogger('kallos.access').info('one', extra={'k': 3});"
        "logging.getLogger('serve_app.search.service').warning('two\\nlines %s', 5)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    one, two = (json.loads(line) for line in done.stderr.splitlines())
    assert (one["message"], one["k"]) == ("one", 3)
    assert two["message"] == "two\nlines 5" and done.stdout == ""


def test_logging_does_not_repeat_the_search(lines):
    service = FakeService()
    local_client(fake_app(service)).post("/v1/search", json={"query": "a"})
    assert len(service.searches) == len(lines) == 1
