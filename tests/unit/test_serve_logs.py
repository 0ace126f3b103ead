"""The log: one JSON line a request, errors with their stack, nothing private."""

import json
import logging
import subprocess
import sys
import threading

import pytest
from made_service import IMAGE_IDS, MadeService, asking, made_app

from cluster.profile import ROOT
from serve_app.http import logs

KEY = "k" * 16


@pytest.fixture
def lines():
    """Ends up holding every line that the package logs, parsed."""
    kept = []

    class Keep(logging.Handler):
        def emit(self, record):
            kept.append(json.loads(self.format(record)))

    handler = Keep()
    handler.setFormatter(logs.JsonFormatter())
    logger = logging.getLogger("kallos")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield kept
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_a_request_is_one_line(lines):
    path = f"/v1/images/{IMAGE_IDS[0]}/why"
    answer = asking(made_app()).get(path, params={"query": "secret words"}, headers={"X-Request-ID": "r-1"})
    assert answer.status_code == 200
    (line,) = lines
    expected = {"logger": "kallos.access", "level": "INFO", "message": "request", "request_id": "r-1",
                "method": "GET", "path": path, "status": 200}  # fmt: skip
    assert {name: line[name] for name in expected} == expected
    assert 0 < line["milliseconds"] < 10_000 and line["time"].endswith("+00:00")
    assert "secret words" not in json.dumps(lines)


def test_the_client_is_its_keys_name_or_its_hashed_address(lines, tmp_path):
    (tmp_path / "keys").write_text(f"ann:{KEY}\n")
    app = made_app(keys_file=str(tmp_path / "keys"))
    asking(app).get("/v1/examples", headers={"Authorization": f"Bearer {KEY}"})
    for host in ("192.0.2.77", "192.0.2.77", "192.0.2.78"):
        asking(app, client=(host, 1)).get("/healthz")
    clients = [line["client"] for line in lines]
    assert clients[0] == "key ann"
    assert clients[1] == clients[2] != clients[3] and clients[1].startswith("address ")
    assert "192.0.2" not in json.dumps(lines) and KEY not in json.dumps(lines)


def add_noting(app):
    from fastapi import Request

    @app.get("/noting")
    async def noting(request: Request) -> dict:
        request.state.log |= {"systems": ["live"], "k": 6, "num_results": 5, "queries": ["red boat"]}
        return {}

    return app


@pytest.mark.parametrize("log_queries", [False, True])
def test_routes_add_fields_and_words_are_written_only_where_asked_for(lines, log_queries):
    asking(add_noting(made_app(log_queries=log_queries))).get("/noting")
    (line,) = lines
    assert (line["systems"], line["k"], line["num_results"]) == (["live"], 6, 5)
    assert line.get("queries") == (["red boat"] if log_queries else None)


def test_a_mistake_of_ours_is_a_line_with_its_stack_and_an_answer_without(lines):
    answer = asking(made_app()).post("/v1/search", json={"query": "break"}, headers={"X-Request-ID": "r-2"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "mistake of ours" not in answer.text
    error, request = lines
    assert error["level"] == "ERROR" and "ZeroDivisionError: a mistake of ours" in error["stack"]
    assert (error["request_id"], error["path"]) == ("r-2", "/v1/search")
    assert (request["status"], request["request_id"]) == (500, "r-2")


def test_requests_at_once_keep_their_own_ids(lines):
    app = made_app()
    threads = [
        threading.Thread(target=lambda n=n: asking(app).get("/healthz", headers={"X-Request-ID": f"r{n}"}))
        for n in range(8)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(line["request_id"] for line in lines) == [f"r{n}" for n in range(8)]


def test_configured_lines_go_to_stderr_once_and_as_json():
    code = (
        "import logging; from serve_app.http import logs; logs.configure(); logs.configure();"
        "logging.getLogger('kallos.access').info('one', extra={'k': 3});"
        "logging.getLogger('serve_app.search.service').warning('two\\nlines %s', 5)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    one, two = (json.loads(line) for line in done.stderr.splitlines())
    assert (one["message"], one["k"]) == ("one", 3)
    assert two["message"] == "two\nlines 5" and done.stdout == ""


def test_a_service_is_asked_once_though_its_request_is_logged(lines):
    service = MadeService()
    asking(made_app(service)).post("/v1/search", json={"query": "a"})
    assert len(service.asked) == len(lines) == 1
