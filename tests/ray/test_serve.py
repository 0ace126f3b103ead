"""The search endpoint: a real server process over real HTTP, with known results, and every refusal."""

import concurrent.futures
import contextlib
import importlib
import io
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
import yaml
from PIL import Image
from ray.serve.schema import ServeDeploySchema
from served import HEX_64, MAX_K, add_gallery, query_vector, search

from actors.images import preview_jpeg
from cluster import command
from cluster.errors import UserError
from cluster.profile import ROOT, load_profile
from cluster.tables import SCHEMAS, EncoderRecord, Store, now
from lab.bench.serve.processes import command_lines
from serve_app.app import _free_port, build_app
from serve_app.config import ServeConfig
from serve_app.errors import ApiError
from serve_app.metrics import Metrics
from serve_app.search.beauty import PROMPT_STRENGTH
from serve_app.search.systems import Systems, opener


@pytest.mark.parametrize("system", ["live", "baseline"])
def test_server_computes_the_same_query_vector_as_the_encoder(server, deployment, system):
    query = "a red sailboat at sunset"
    answer = search(server, query, system)
    expected = deployment.encoders[system].encode_texts([query])[0]
    np.testing.assert_allclose(query_vector(answer["results"], deployment.axes[system]), expected, atol=1e-5)
    assert answer["system"] == system
    assert answer["encoder"] == deployment.encoders[system].fingerprint


def test_results_are_the_best_k_with_captions_sizes_and_timings(server, deployment):
    vector = deployment.encoders["live"].encode_texts(["two dogs"])[0]
    expected = [deployment.axes["live"][axis] for axis in np.argsort(-vector)[:5]]
    answer = search(server, "  two dogs ", k=5)
    assert [row["image_id"] for row in answer["results"]] == expected
    first = answer["results"][0]
    number = int(first["caption"].removeprefix("the picture "))
    assert (first["width_px"], first["height_px"]) == (64 + 8 * number, 300)
    assert answer["query"] == "two dogs"
    times = answer["timings_ms"]
    assert set(times) == {"encode", "search", "total"} and answer["search_id"] and answer["rephrased"] == ""
    assert 0 < times["encode"] + times["search"] <= times["total"] + 0.01 < 10_000


def test_concurrent_searches_each_get_their_own_answer(server, deployment):
    queries = [f"{number} boats on a lake" for number in range(48)]
    systems = [("live", "baseline")[number % 2] for number in range(48)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda pair: search(server, *pair), zip(queries, systems, strict=True)))
    for query, system, answer in zip(queries, systems, answers, strict=True):
        expected = deployment.encoders[system].encode_texts([query])[0]
        np.testing.assert_allclose(
            query_vector(answer["results"], deployment.axes[system]), expected, atol=1e-5
        )


def test_preview_is_the_stored_jpeg_and_can_be_revalidated(server, deployment):
    result = search(server, "a lake", k=1)["results"][0]
    answer = server.get(result["preview_url"])
    where = f"image_id = '{result['image_id']}'"
    stored = deployment.store.read("images", ["preview"], where)["preview"][0].as_py()
    assert answer.content == stored
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "private, no-cache"  # a deleted image disappears at once
    assert max(Image.open(io.BytesIO(answer.content)).size) == 256
    again = server.get(result["preview_url"], headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = server.get(result["preview_url"], headers={"If-None-Match": '"other"'})
    assert other.status_code == 200


def test_healthz_describes_every_system(server, deployment):
    health = server.get("/healthz").json()
    assert health["status"] == "ok" and health["max_k"] == MAX_K
    for alias, encoder in deployment.encoders.items():
        expected = {
            "encoder": encoder.fingerprint,
            "parent": "",
            "num_rows": encoder.dim,
            "recall_at_10": 1.0,
            "beauty": {"source": "prompts", "strength": PROMPT_STRENGTH},
        }
        assert health["systems"][alias] == expected


def test_preview_of_an_image_ingested_later(server, deployment):
    jpeg = preview_jpeg(Image.new("RGB", (50, 50), "teal"))
    row = {"image_id": "f" * 64, "uri": "late.png", "caption": "", "detailed_caption": "", "width_px": 50}
    row |= {"height_px": 50, "preview": jpeg, "tags": [], "source": "test", "added_at": now()}
    assert server.get(f"/v1/images/{'f' * 64}/preview").status_code == 404
    deployment.store.merge("images", pa.Table.from_pylist([row], SCHEMAS["images"]), on=["image_id"])
    assert server.get(f"/v1/images/{'f' * 64}/preview").content == jpeg


JSON = {"content-type": "application/json"}
REFUSED = {
    "empty query": ({"json": {"query": ""}}, 422, "empty_query", ""),
    "blank query": ({"json": {"query": " \n\t "}}, 422, "empty_query", ""),
    "too long": ({"json": {"query": "x" * 501}}, 422, "query_too_long", "query"),
    "not text": ({"content": rb'{"query": "\ud800"}', "headers": JSON}, 422, "not_text", "query"),
    "no query": ({"json": {"k": 3}}, 422, "empty_query", ""),
    "query is a number": ({"json": {"query": 7}}, 422, "invalid_value", "query"),
    "k zero": ({"json": {"query": "a", "k": 0}}, 422, "k_out_of_range", "k"),
    "k too large": ({"json": {"query": "a", "k": MAX_K + 1}}, 422, "k_out_of_range", "k"),
    "k is text": ({"json": {"query": "a", "k": "many"}}, 422, "invalid_value", "k"),
    "k is true": ({"json": {"query": "a", "k": True}}, 422, "invalid_value", "k"),
    "k is not finite": (
        {"content": b'{"query": "a", "k": 1e999}', "headers": JSON},
        422,
        "invalid_value",
        "k",
    ),
    "unknown system": ({"json": {"query": "a", "system": "best"}}, 422, "unknown_system", "system"),
    "invisible query": ({"json": {"query": "\u200b"}}, 422, "empty_query", "query"),
    "NUL for a negative": (
        {"json": {"query": "a", "negatives": ["\0"]}},
        422,
        "invalid_value",
        "negatives.0",
    ),
    "a number for a time": (
        {"json": {"query": "a", "filters": {"added_before": "20300101"}}},
        422,
        "invalid_value",
        "filters.added_before",
    ),
    "many fields": (
        {"content": b'{"query": "a"' + b', "f": 1' * 1_000_000 + b"}", "headers": JSON},
        413,
        "body_too_large",
        "",
    ),
    "unknown field": ({"json": {"query": "a", "where": "1=1"}}, 422, "unknown_field", "where"),
    "a long field": ({"json": {"query": "a", "x" * 999: 1}}, 422, "unknown_field", "x" * 100),
    "field is no text": ({"content": rb'{"\ud800": 1}', "headers": JSON}, 422, "invalid_value", ""),
    "a list": ({"json": ["a"]}, 422, "invalid_value", ""),
    "null": ({"content": b"null", "headers": JSON}, 422, "missing_field", ""),
    "no body": ({"content": b"", "headers": JSON}, 422, "missing_field", ""),
    "malformed": ({"content": b'{"query": ', "headers": JSON}, 400, "malformed_json", ""),
    "not UTF-8": ({"content": b'{"query": "\xff"}', "headers": JSON}, 400, "malformed_json", ""),
    "too deep": ({"content": b"[" * 20000, "headers": JSON}, 400, "malformed_json", ""),
    "form": ({"data": {"query": "a"}}, 415, "wrong_content_type", "content-type"),
    "no type": ({"content": b'{"query": "a"}'}, 415, "wrong_content_type", "content-type"),
    "too large": ({"content": b" " * 11_000_000, "headers": JSON}, 413, "body_too_large", ""),
    "two kinds of image": (
        {"json": {"image": {"image_id": HEX_64, "data": "aGk="}}},
        422,
        "one_image",
        "image",
    ),
    "no such image": ({"json": {"image": {"image_id": HEX_64}}}, 404, "unknown_image", "image.image_id"),
    "no image file": ({"json": {"image": {"data": "aGk="}}}, 422, "unusable_image", "image.data"),
    "an image elsewhere": (
        {"json": {"image": {"url": "http://127.0.0.1/x.png"}}},
        403,
        "url_images_off",
        "image.url",
    ),
    "SQL for a filter": ({"json": {"query": "a", "filters": "1=1"}}, 422, "invalid_value", "filters"),
    "no cursor": ({"json": {"query": "a", "cursor": "x"}}, 422, "bad_cursor", "cursor"),
    "the second is empty": (
        {"json": {"searches": [{"query": "a"}, {"query": " "}]}},
        422,
        "empty_query",
        "searches.1",
    ),
    "no searches": ({"json": {"searches": []}}, 422, "invalid_value", "searches"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_request_is_refused_with_code_message_and_field(server, name):
    request, status, code, field = REFUSED[name]
    answer = server.post("/v1/search", **request)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["field"]) == (status, code, field), answer.text
    assert len(error["message"]) > 10 and set(answer.json()) == {"error"}
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/page/main.css", "/v1/tastes", "/openapi.json", "/nothing"]
)
def test_head_is_answered_as_get_without_the_body(server, path):
    get, head = server.get(path), server.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    for name in ("content-type", "content-length", "content-security-policy"):
        assert head.headers[name] == get.headers[name]


def test_answer_says_how_many_words_the_encoder_read(server, deployment):
    answer = search(server, "boat " * 80, k=1)
    read = deployment.encoders["live"].num_words_read("boat " * 80)
    assert answer["query_words"] == {"given": 80, "read": read} and 0 < read < 80


def test_foreign_host_is_refused(server):
    answer = server.get("/v1/examples", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (421, "wrong_host")


def test_feedback_tables_exist_before_any_feedback(server, deployment):
    assert {"feedback", "preferences"} <= set(deployment.store.names())


@pytest.mark.parametrize(
    "method, path, status, code",
    [
        ("GET", f"/v1/images/{HEX_64}/preview", 404, "unknown_image"),
        ("GET", "/v1/images/x' OR '1'='1/preview", 404, "unknown_image"),
        ("GET", "/v1/images/..%2f..%2fsecret/preview", 404, "not_found"),
        ("GET", "/page/..%2fapi.py", 404, "not_found"),
        ("GET", "/page/nothing.js", 404, "not_found"),
        ("GET", "/v2/search", 404, "not_found"),
        ("GET", "/v1/search", 405, "method_not_allowed"),
    ],
)
def test_unknown_paths_and_images_are_refused_in_the_same_form(server, method, path, status, code):
    answer = server.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_security_headers_and_no_inline_code(server):
    for path in ("/", "/docs", "/healthz", "/nothing"):
        headers = server.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    for path in ("/", "/docs"):
        html = server.get(path).text
        assert re.findall(r"(?:src|href)=\"(?:https?:)?//", html) == []
        assert re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=", html) is None


def test_openapi_documents_bounds_systems_and_errors(server):
    document = server.get("/openapi.json").json()
    fields = document["components"]["schemas"]["SearchRequest"]["properties"]
    assert fields["k"]["maximum"] == MAX_K
    systems = ["live", "baseline", "candidate", "suffix", "axis", "rephrase", "teacher"]
    assert fields["system"]["enum"] == systems and fields["system"]["default"] == "live"
    responses = document["paths"]["/v1/search"]["post"]["responses"]
    for status in ("400", "413", "415", "422"):
        assert responses[status]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorBody")


# ---- refusals at the start, without server and Ray


def register(store, encoder, alias, checkpoint):
    """Register an encoder, with this folder as its checkpoint, and give it the alias."""
    record = EncoderRecord(encoder=encoder.fingerprint, checkpoint=str(checkpoint), dim=encoder.dim)
    store.register_encoder(record)
    store.set_alias(alias, encoder.fingerprint)


def open_systems(deployment, store, aliases=("live",)):
    profile = load_profile(deployment.profile)
    return Systems(store, aliases, opener(profile, store, Metrics()))


def test_missing_index_is_refused_with_the_command_that_makes_it(deployment, tmp_path):
    store = Store(str(tmp_path))
    encoder = deployment.encoders["live"]
    register(store, encoder, "live", deployment.folder / "live")
    with pytest.raises(
        UserError, match=rf"{encoder.fingerprint}.*kallos index --encoder {encoder.fingerprint}"
    ):
        open_systems(deployment, store)


def test_checkpoint_of_another_encoder_is_refused_with_both_fingerprints(deployment, tmp_path):
    store = Store(str(tmp_path))
    live, baseline = deployment.encoders["live"], deployment.encoders["baseline"]
    register(store, live, "live", deployment.folder / "baseline")
    add_gallery(store, live.dim, live.fingerprint, range(live.dim))
    with pytest.raises(UserError) as refusal:
        open_systems(deployment, store)
    for part in (live.fingerprint, baseline.fingerprint, "kallos index --encoder"):
        assert part in str(refusal.value)


def test_live_is_the_baseline_until_something_is_promoted(deployment, tmp_path):
    store = Store(str(tmp_path))
    baseline = deployment.encoders["baseline"]
    register(store, baseline, "baseline", deployment.folder / "baseline")
    add_gallery(store, baseline.dim, baseline.fingerprint, range(baseline.dim))
    systems = open_systems(deployment, store, ("live", "baseline"))
    assert systems.get("live") is systems.get("baseline")
    with pytest.raises(ApiError, match="no system 'candidate'"):
        systems.get("candidate")


def test_missing_store_is_refused(deployment, tmp_path):
    with pytest.raises(UserError, match="kallos ingest"):
        open_systems(deployment, Store(str(tmp_path / "nothing")))


def test_port_in_use_is_refused_in_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"127.0.0.1:{port} .*give another --port"):
            _free_port("127.0.0.1", port)
    assert _free_port("127.0.0.1", 0) > 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--port", "70000"], "65535"),
        (["--profile", "no-such"], "no profile 'no-such'"),
        (["--profile", "mini", "--store", "nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_the_command_line_ends_with_status_2_and_one_sentence(arguments, message, tmp_path):
    command = [sys.executable, "-m", "serve_app", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2
    assert message in ended.stderr and "Traceback" not in ended.stderr
    assert ended.stdout == "" and os.listdir(tmp_path) == []


# ---- processes


def test_server_on_loopback_listens_nowhere_else_and_keeps_its_sockets_to_its_user(server):
    children = command_lines(psutil.Process().children())
    (process,) = (child for child, words in children.items() if "serve_app" in words)
    family = [process, *process.children(recursive=True)]
    listening = set()
    for program in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            listening |= {
                (program.name(), connection.laddr.ip)
                for connection in program.net_connections()
                if connection.status == psutil.CONN_LISTEN
            }
    assert len(listening) > 5
    assert {ip for _, ip in listening} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, listening
    family_words = command_lines(family).values()
    config = next(Path(words[3]) for words in family_words if words and Path(words[0]).name == "haproxy")
    assert config.parents[1].stat().st_mode & 0o777 == 0o700
    assert (config.parent / "admin").stat().st_mode & 0o777 == 0o600


# ---- Serve YAML

YAMLS = sorted((ROOT / "cluster" / "serve").glob("*.yaml"))


def test_there_are_serve_yamls():
    assert YAMLS


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.name)
def test_every_serve_yaml_loads_and_its_arguments_validate(path):
    deployed = ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))
    assert deployed.applications
    for application in deployed.applications:
        module, _, name = application.import_path.partition(":")
        builder = getattr(importlib.import_module(module), name)
        assert builder is build_app
        profile = command.profile_of(command.validated(ServeConfig, application.args))
        assert deployed.http_options.port == profile.serve.port
