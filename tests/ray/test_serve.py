"""The search endpoint: a real server process, real HTTP, answers known in advance, every refusal.

The gallery's vectors are the standard basis, so the scores of one search are the components of the query's
vector: what the server computed can be read back and compared with what the encoder gives here.
"""

import base64
import concurrent.futures
import hashlib
import importlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image
from ray.serve.schema import ServeDeploySchema
from tiny_encoder import write_tiny_encoder

from actors.encoder import Encoder
from actors.images import preview_jpeg
from cluster.errors import UserError
from cluster.profile import PROFILES, ROOT, load_profile
from cluster.tables import SCHEMAS, EncoderRecord, Store, embeddings_schema, embeddings_table, now
from serve_app.app import _free_port
from serve_app.args import ServeArgs
from serve_app.errors import ApiError
from serve_app.systems import Systems, opener

MAX_K = 32
START_TIMEOUT_S = 500  # twenty are enough on an idle machine
HEX_64 = "0" * 64


def add_gallery(store, dim, fingerprint, order):
    """`dim` images; the one at place `number` of `order` has the unit vector of axis `number`."""
    pictures = [Image.new("RGB", (64 + 8 * number, 300), (7 * number, 99, 60)) for number in range(dim)]
    ids = [hashlib.sha256(f"picture {number}".encode()).hexdigest() for number in range(dim)]
    shared = [
        {
            "image_id": ids[number],
            "caption": f"the picture {number}",
            "width_px": pictures[number].width,
            "height_px": 300,
            "tags": [],
            "source": "test",
            "added_at": now(),
        }
        for number in range(dim)
    ]
    images = [
        {**row, "uri": f"{row['image_id']}.png", "detailed_caption": "", "preview": preview_jpeg(picture)}
        for row, picture in zip(shared, pictures, strict=True)
    ]
    store.merge("images", pa.Table.from_pylist(images, SCHEMAS["images"]), on=["image_id"])
    axes = np.eye(dim, dtype=np.float32)
    rows = [
        {**shared[number], "vector": axes[place], "aesthetic": place / dim}
        for place, number in enumerate(order)
    ]
    vectors = pa.Table.from_pylist(rows, embeddings_schema(dim))
    store.merge(embeddings_table(fingerprint), vectors, on=["image_id"])
    return [ids[number] for number in order]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store with two encoders and their indexes, and a profile file that points to it."""
    folder = tmp_path_factory.mktemp("serve")
    store = Store(str(folder / "store"))
    encoders, axes = {}, {}
    for seed, alias in enumerate(("baseline", "live")):
        checkpoint = write_tiny_encoder(folder / alias, seed)
        encoder = encoders[alias] = Encoder.load(checkpoint)
        record = EncoderRecord(encoder=encoder.fingerprint, checkpoint=checkpoint, dim=encoder.dim)
        store.register_encoder(record)
        store.set_alias(alias, encoder.fingerprint)
        order = np.random.default_rng(seed).permutation(encoder.dim)
        axes[alias] = add_gallery(store, encoder.dim, encoder.fingerprint, order)
    values = yaml.safe_load((PROFILES / "mini.yaml").read_text())
    values["store"] = store.uri
    values["serve"] |= {"max_k": MAX_K, "refresh_s": 0.2, "allow_delete": True}
    values["ray"]["object_store_bytes"] = 200_000_000
    profile = folder / "profile.yaml"
    profile.write_text(yaml.safe_dump(values))
    return {"store": store, "encoders": encoders, "axes": axes, "profile": str(profile), "folder": folder}


@pytest.fixture(scope="module")
def server(world):
    """`python -m serve_app` in a process of its own; ends it with SIGTERM and checks how it ended."""
    command = [sys.executable, "-m", "serve_app", "--profile", world["profile"], "--port", "0"]
    log = open(world["folder"] / "stderr.txt", "w+")  # noqa: SIM115 (open until the process has ended)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        address = wait_for_address(process, Path(log.name))
        with httpx.Client(base_url=address, timeout=30) as client:
            yield client
        process.send_signal(signal.SIGTERM)
        stdout, _ = process.communicate(timeout=60)
        assert process.returncode == 0, Path(log.name).read_text()
        assert json.loads(stdout.splitlines()[-1])["address"] == address
    finally:
        process.kill()
        log.close()


def wait_for_address(process, log):
    for _ in range(10 * START_TIMEOUT_S):
        if found := re.search(r"Kallos answers at (http://\S+) ", log.read_text()):
            return found[1]
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError(f"the server did not start:\n{log.read_text()}")


def search(client, query, system="live", k=MAX_K):
    answer = client.post("/v1/search", json={"query": query, "k": k, "system": system})
    assert answer.status_code == 200, answer.text
    return answer.json()


def read_back(results, axes):
    """The query's vector, from the scores against the unit vectors of the axes."""
    scores = {row["image_id"]: row["score"] for row in results}
    return np.array([scores[image_id] for image_id in axes])


@pytest.mark.parametrize("system", ["live", "baseline"])
def test_the_servers_vector_is_the_encoders(server, world, system):
    query = "a red sailboat at sunset"
    answer = search(server, query, system)
    expected = world["encoders"][system].encode_texts([query])[0]
    np.testing.assert_allclose(read_back(answer["results"], world["axes"][system]), expected, atol=1e-5)
    assert answer["system"] == system
    assert answer["encoder"] == world["encoders"][system].fingerprint


def test_results_are_the_best_k_with_what_a_page_needs(server, world):
    vector = world["encoders"]["live"].encode_texts(["two dogs"])[0]
    expected = [world["axes"]["live"][axis] for axis in np.argsort(-vector)[:5]]
    answer = search(server, "  two dogs ", k=5)
    assert [row["image_id"] for row in answer["results"]] == expected
    first = answer["results"][0]
    number = int(first["caption"].removeprefix("the picture "))
    assert (first["width_px"], first["height_px"]) == (64 + 8 * number, 300)
    assert answer["query"] == "two dogs"
    times = answer["timings_ms"]
    assert set(times) == {"encode", "search", "total"} and answer["search_id"] and answer["rephrased"] == ""
    assert 0 < times["encode"] + times["search"] <= times["total"] + 0.01 < 10_000


def test_many_at_once_each_get_their_own_answer(server, world):
    queries = [f"{number} boats on a lake" for number in range(48)]
    systems = [("live", "baseline")[number % 2] for number in range(48)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda pair: search(server, *pair), zip(queries, systems, strict=True)))
    for query, system, answer in zip(queries, systems, answers, strict=True):
        expected = world["encoders"][system].encode_texts([query])[0]
        np.testing.assert_allclose(read_back(answer["results"], world["axes"][system]), expected, atol=1e-5)


def test_preview_is_the_stored_jpeg_and_is_cached(server, world):
    result = search(server, "a lake", k=1)["results"][0]
    answer = server.get(result["preview_url"])
    stored = (
        world["store"].read("images", ["preview"], f"image_id = '{result['image_id']}'")["preview"][0].as_py()
    )
    assert answer.content == stored
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "private, no-cache"  # a deleted image is gone at once
    assert max(Image.open(io.BytesIO(answer.content)).size) == 256
    again = server.get(result["preview_url"], headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = server.get(result["preview_url"], headers={"If-None-Match": '"other"'})
    assert other.status_code == 200


def test_health_names_every_system(server, world):
    health = server.get("/healthz").json()
    assert health["status"] == "ok" and health["max_k"] == MAX_K
    for alias, encoder in world["encoders"].items():
        expected = {
            "encoder": encoder.fingerprint,
            "parent": "",
            "num_rows": encoder.dim,
            "recall_at_10": 1.0,
        }
        assert health["systems"][alias] == expected


def test_an_image_ingested_later_has_a_preview(server, world):
    jpeg = preview_jpeg(Image.new("RGB", (50, 50), "teal"))
    row = {"image_id": "f" * 64, "uri": "late.png", "caption": "", "detailed_caption": "", "width_px": 50}
    row |= {"height_px": 50, "preview": jpeg, "tags": [], "source": "test", "added_at": now()}
    assert server.get(f"/v1/images/{'f' * 64}/preview").status_code == 404
    world["store"].merge("images", pa.Table.from_pylist([row], SCHEMAS["images"]), on=["image_id"])
    assert server.get(f"/v1/images/{'f' * 64}/preview").content == jpeg


# ---- other forms of a query


def ask(server, **body):
    answer = server.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(answer):
    return [row["image_id"] for row in answer["results"]]


def test_an_image_of_the_store_finds_itself_first(server, world):
    wanted = world["axes"]["live"][3]
    answer = ask(server, image={"image_id": wanted}, k=3)
    assert ids(answer)[0] == wanted and answer["results"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert set(answer["timings_ms"]) == {"image", "search", "total"}


def test_an_upload_is_seen_as_the_encoder_sees_it(server, world):
    picture = Image.new("RGB", (90, 70), (200, 40, 90))
    data = io.BytesIO()
    picture.save(data, "PNG")
    encoder = world["encoders"]["live"]
    expected = encoder.encode_images(encoder.pixels(picture)[None])[0]
    answer = ask(server, image={"data": base64.b64encode(data.getvalue()).decode()}, k=MAX_K)
    np.testing.assert_allclose(read_back(answer["results"], world["axes"]["live"]), expected, atol=1e-5)


def test_words_image_and_negatives_are_weighed(server, world):
    encoder, axes = world["encoders"]["live"], world["axes"]["live"]
    words, negative = encoder.encode_texts(["a dog", "people"])
    expected = 0.25 * words - 0.8 * negative
    expected[3] += 0.75
    answer = ask(
        server, query="a dog", image={"image_id": axes[3]}, image_weight=0.75, negatives=["people"],
        negative_weight=0.8, k=MAX_K,
    )  # fmt: skip
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(read_back(answer["results"], axes), expected, atol=1e-5)


def test_several_searches_are_answered_in_their_order(server):
    searches = [{"query": "a dog", "k": 2}, {"query": "a cat", "k": 3, "system": "baseline"}]
    answers = ask(server, searches=searches)["answers"]
    assert [(a["query"], a["system"], len(a["results"])) for a in answers] == [
        ("a dog", "live", 2),
        ("a cat", "baseline", 3),
    ]
    assert ids(answers[0]) == ids(ask(server, query="a dog", k=2))


def test_filters_hold_and_are_typed(server, world):
    axes = world["axes"]["live"]
    answer = ask(server, query="a dog", k=MAX_K, filters={"min_aesthetic": 0.5})
    assert set(ids(answer)) == set(axes[len(axes) // 2 :])
    answer = ask(server, query="a dog", k=MAX_K, filters={"max_width_px": 100})
    assert answer["results"] and all(row["width_px"] <= 100 for row in answer["results"])
    assert ask(server, query="a dog", filters={"sources": ["elsewhere"]})["results"] == []


def test_pages_follow_one_another_without_gap_or_double(server):
    whole = ids(ask(server, query="a dog", k=MAX_K))
    pages, cursor = [], ""
    while True:
        answer = ask(server, query="a dog", k=5, cursor=cursor)
        pages += ids(answer)
        cursor = answer["next"]
        if not cursor:
            break
    assert pages == whole


def test_diversity_changes_the_order_and_pages_too(server):
    plain = ids(ask(server, query="a dog", k=MAX_K))
    diversity = {"weight": 0.9, "num_candidates": MAX_K}
    diverse = ask(server, query="a dog", k=MAX_K, diversity=diversity)
    assert set(ids(diverse)) == set(plain) and "diversify" in diverse["timings_ms"]
    first = ask(server, query="a dog", k=4, diversity=diversity)
    second = ask(server, query="a dog", k=4, diversity=diversity, cursor=first["next"])
    assert ids(first) + ids(second) == ids(diverse)[:8]


def test_tastes_are_offered_and_move_the_results(server):
    offered = {taste["name"] for taste in server.get("/v1/tastes").json()["tastes"]}
    assert "colour" in offered or "warmth" in offered
    name = sorted(offered)[0]
    more, less = (ask(server, query="a dog", k=MAX_K, tastes={name: amount}) for amount in (1.0, -1.0))
    assert ids(more) != ids(less)
    refused = server.post("/v1/search", json={"query": "a dog", "tastes": {"spicy": 1.0}})
    assert refused.json()["error"]["code"] == "unknown_taste"


def test_why_tells_which_parts_speak(server, world):
    shown = world["axes"]["live"][0]
    answer = server.get(f"/v1/images/{shown}/why", params={"query": "a dog"})
    values = np.array(answer.json()["values"])
    assert values.ndim == 2 and np.abs(values).max() <= 1.0001
    assert server.get(f"/v1/images/{HEX_64}/why", params={"query": "a dog"}).status_code == 404


def test_no_candidate_is_told_with_the_way_to_one(server):
    answer = server.post("/v1/search", json={"query": "a dog", "system": "candidate"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_such_system")


def test_it_is_alive_and_ready(server):
    assert server.get("/readyz").json() == {"status": "ready"}


def test_a_click_is_on_the_disk_when_it_is_answered(server, world):
    answer = ask(server, query="a clicked dog", k=4)
    time.sleep(0.5)  # faster is no person
    event = {"kind": "click", "search_id": answer["search_id"], "results": ids(answer)}
    event["image_id"] = ids(answer)[2]
    told = server.post("/v1/feedback", json=event).json()
    assert told["new"] and told["num_preferences"] == 2
    kept = world["store"].read("preferences", where="query = 'a clicked dog'").to_pylist()
    assert {(row["winner"], row["loser"], row["source"]) for row in kept} == {
        (ids(answer)[2], other, "human") for other in ids(answer)[:2]
    }
    assert not server.post("/v1/feedback", json=event).json()["new"]


def test_a_new_image_is_found_at_once_and_a_deleted_one_nowhere(server, world):
    encoder = world["encoders"]["live"]
    store, new = world["store"], hashlib.sha256(b"a new picture").hexdigest()
    vector = encoder.encode_texts(["the newest picture"])[0]
    shared = {"image_id": new, "caption": "new", "width_px": 9, "height_px": 9, "tags": [], "source": "test"}
    shared["added_at"] = now()
    jpeg = preview_jpeg(Image.new("RGB", (50, 50), "plum"))
    image = {**shared, "uri": "", "detailed_caption": "", "preview": jpeg}
    store.merge("images", pa.Table.from_pylist([image], SCHEMAS["images"]), on=["image_id"])
    row = pa.Table.from_pylist(
        [{**shared, "vector": vector, "aesthetic": 0.5}], embeddings_schema(encoder.dim)
    )
    store.merge(embeddings_table(encoder.fingerprint), row, on=["image_id"])
    assert ids(ask(server, query="the newest picture", k=1)) == [new]
    page = ask(server, query="the newest picture", k=1)
    assert server.get(f"/v1/images/{new}/preview").content == jpeg
    assert server.delete(f"/v1/images/{new}").json()["num_rows"] == 2
    assert new not in ids(ask(server, query="the newest picture", k=MAX_K))
    assert server.get(f"/v1/images/{new}/preview").status_code == 404
    assert server.delete(f"/v1/images/{new}").status_code == 404
    older = ask(server, query="the newest picture", k=3, cursor=page["next"])
    assert older["results"] and new not in ids(older)


def test_a_promotion_is_followed_without_a_mixed_answer(server, world):
    store, encoders = world["store"], world["encoders"]
    before, after = encoders["live"].fingerprint, encoders["baseline"].fingerprint
    first = ask(server, query="a dog", k=3)
    store.set_alias("live", after)
    try:
        seen = set()
        for _ in range(200):
            answer = ask(server, query="a dog", k=3)
            seen.add(answer["encoder"])
            alias = "live" if answer["encoder"] == before else "baseline"
            vector = encoders[alias].encode_texts(["a dog"])[0]
            assert ids(answer) == [world["axes"][alias][axis] for axis in np.argsort(-vector)[:3]]
            if answer["encoder"] == after:
                break
            time.sleep(0.05)
        assert after in seen
        second = ask(server, query="a dog", k=3, cursor=first["next"])
        assert second["encoder"] == before  # a search goes on with the encoder that it began with
    finally:
        store.set_alias("live", before)


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
def test_bad_input_is_refused_with_code_message_and_field(server, name):
    request, status, code, field = REFUSED[name]
    answer = server.post("/v1/search", **request)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["field"]) == (status, code, field), answer.text
    assert len(error["message"]) > 10 and set(answer.json()) == {"error"}
    assert answer.headers["content-type"] == "application/json"


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
def test_unknown_things_are_refused_in_the_same_form(server, method, path, status, code):
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


def test_openapi_tells_bounds_systems_and_errors(server):
    document = server.get("/openapi.json").json()
    fields = document["components"]["schemas"]["SearchRequest"]["properties"]
    assert fields["k"]["maximum"] == MAX_K
    assert (
        fields["system"]["enum"] == ["live", "baseline", "candidate", "teacher"]
        and fields["system"]["default"] == "live"
    )
    responses = document["paths"]["/v1/search"]["post"]["responses"]
    for status in ("400", "413", "415", "422"):
        assert responses[status]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorBody")


# ---- refusals at start: no server, no Ray


def opened(world, store, aliases=("live",)):
    profile = load_profile(world["profile"])
    return Systems(store, aliases, opener(profile, store))


def test_a_missing_index_is_refused_with_the_command_that_makes_it(world, tmp_path):
    store = Store(str(tmp_path))
    encoder = world["encoders"]["live"]
    record = EncoderRecord(
        encoder=encoder.fingerprint, checkpoint=str(world["folder"] / "live"), dim=encoder.dim
    )
    store.register_encoder(record)
    store.set_alias("live", encoder.fingerprint)
    with pytest.raises(
        UserError, match=rf"{encoder.fingerprint}.*kallos index --encoder {encoder.fingerprint}"
    ):
        opened(world, store)


def test_a_checkpoint_that_is_not_the_registered_encoder_is_refused_with_both_names(world, tmp_path):
    store = Store(str(tmp_path))
    live, baseline = world["encoders"]["live"], world["encoders"]["baseline"]
    record = EncoderRecord(
        encoder=live.fingerprint, checkpoint=str(world["folder"] / "baseline"), dim=live.dim
    )
    store.register_encoder(record)
    store.set_alias("live", live.fingerprint)
    add_gallery(store, live.dim, live.fingerprint, range(live.dim))
    with pytest.raises(UserError) as refusal:
        opened(world, store)
    for part in (live.fingerprint, baseline.fingerprint, "kallos index --encoder"):
        assert part in str(refusal.value)


def test_live_is_the_baseline_until_something_is_promoted(world, tmp_path):
    store = Store(str(tmp_path))
    baseline = world["encoders"]["baseline"]
    record = EncoderRecord(
        encoder=baseline.fingerprint, checkpoint=str(world["folder"] / "baseline"), dim=baseline.dim
    )
    store.register_encoder(record)
    store.set_alias("baseline", baseline.fingerprint)
    add_gallery(store, baseline.dim, baseline.fingerprint, range(baseline.dim))
    systems = opened(world, store, ("live", "baseline"))
    assert systems.get("live") is systems.get("baseline")
    with pytest.raises(ApiError, match="no 'candidate'"):
        systems.get("candidate")


def test_an_empty_store_is_refused(world, tmp_path):
    with pytest.raises(UserError, match="kallos ingest"):
        opened(world, Store(str(tmp_path / "nothing")))


def test_a_port_in_use_is_refused_in_one_sentence():
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
        assert builder.__annotations__["args"] is ServeArgs  # or Serve would hand it an unchecked dict
        args = ServeArgs.model_validate(application.args)
        profile = load_profile(args.profile)
        assert deployed.http_options.port == profile.serve.port
