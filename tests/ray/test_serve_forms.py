"""All features of a real server: images, filters, pages, tastes, feedback, deletion, promotion."""

import base64
import hashlib
import io
import json
import subprocess
import sys
import time

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image
from served import HEX_64, MAX_K, START_TIMEOUT_S, ask, ids, query_vector

from cluster.compat.serve import replica_title
from cluster.profile import ROOT
from lab.bench.serve.processes import command_lines


def test_image_of_the_store_finds_itself_first(server, deployment):
    wanted = deployment.axes["live"][3]
    answer = ask(server, image={"image_id": wanted}, k=3)
    assert ids(answer)[0] == wanted and answer["results"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert set(answer["timings_ms"]) == {"image", "search", "total"}


def test_upload_gets_the_same_vector_as_from_the_encoder(server, deployment):
    picture = Image.new("RGB", (90, 70), (200, 40, 90))
    data = io.BytesIO()
    picture.save(data, "PNG")
    encoder = deployment.encoders["live"]
    expected = encoder.encode_images(encoder.pixels(picture)[None])[0]
    answer = ask(server, image={"data": base64.b64encode(data.getvalue()).decode()}, k=MAX_K)
    np.testing.assert_allclose(query_vector(answer["results"], deployment.axes["live"]), expected, atol=1e-5)


def test_words_image_and_negatives_are_weighted(server, deployment):
    encoder, axes = deployment.encoders["live"], deployment.axes["live"]
    words, negative = encoder.encode_texts(["a dog", "people"])
    expected = 0.25 * words - 0.8 * negative
    expected[3] += 0.75
    answer = ask(
        server, query="a dog", image={"image_id": axes[3]}, image_weight=0.75, negatives=["people"],
        negative_weight=0.8, k=MAX_K,
    )  # fmt: skip
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(query_vector(answer["results"], axes), expected, atol=1e-5)


def test_several_searches_are_answered_in_order(server):
    searches = [{"query": "a dog", "k": 2}, {"query": "a cat", "k": 3, "system": "baseline"}]
    answers = ask(server, searches=searches)["answers"]
    assert [(a["query"], a["system"], len(a["results"])) for a in answers] == [
        ("a dog", "live", 2),
        ("a cat", "baseline", 3),
    ]
    assert ids(answers[0]) == ids(ask(server, query="a dog", k=2))


def test_results_meet_the_filters(server, deployment):
    axes = deployment.axes["live"]
    answer = ask(server, query="a dog", k=MAX_K, filters={"min_aesthetic": 0.5})
    assert set(ids(answer)) == set(axes[len(axes) // 2 :])
    answer = ask(server, query="a dog", k=MAX_K, filters={"max_width_px": 100})
    assert answer["results"] and all(row["width_px"] <= 100 for row in answer["results"])
    assert ask(server, query="a dog", filters={"sources": ["elsewhere"]})["results"] == []


def test_pages_have_no_gaps_or_duplicates(server):
    whole = ids(ask(server, query="a dog", k=MAX_K))
    pages, cursor = [], ""
    while True:
        answer = ask(server, query="a dog", k=5, cursor=cursor)
        pages += ids(answer)
        cursor = answer["next"]
        if not cursor:
            break
    assert pages == whole


def test_diversity_changes_the_order_consistently_over_pages(server):
    plain = ids(ask(server, query="a dog", k=MAX_K))
    diversity = {"weight": 0.9, "num_candidates": MAX_K}
    diverse = ask(server, query="a dog", k=MAX_K, diversity=diversity)
    assert set(ids(diverse)) == set(plain) and "diversify" in diverse["timings_ms"]
    first = ask(server, query="a dog", k=4, diversity=diversity)
    second = ask(server, query="a dog", k=4, diversity=diversity, cursor=first["next"])
    assert ids(first) + ids(second) == ids(diverse)[:8]


def test_tastes_are_listed_and_shift_the_results(server):
    offered = {taste["name"] for taste in server.get("/v1/tastes").json()["tastes"]}
    assert "colour" in offered or "warmth" in offered
    name = sorted(offered)[0]
    more, less = (ask(server, query="a dog", k=MAX_K, tastes={name: amount}) for amount in (1.0, -1.0))
    assert ids(more) != ids(less)
    refused = server.post("/v1/search", json={"query": "a dog", "tastes": {"spicy": 1.0}})
    assert refused.json()["error"]["code"] == "unknown_taste"


def test_why_returns_a_heat_map(server, deployment):
    shown = deployment.axes["live"][0]
    answer = server.get(f"/v1/images/{shown}/why", params={"query": "a dog"})
    values = np.array(answer.json()["values"])
    assert values.ndim == 2 and np.abs(values).max() <= 1.0001
    assert server.get(f"/v1/images/{HEX_64}/why", params={"query": "a dog"}).status_code == 404


def test_missing_candidate_is_refused_with_404(server):
    answer = server.post("/v1/search", json={"query": "a dog", "system": "candidate"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_such_system")


def test_server_is_ready(server):
    assert server.get("/readyz").json() == {"status": "ready"}


def test_click_is_stored_when_its_request_returns(server, deployment):
    answer = ask(server, query="a clicked dog", k=4)
    time.sleep(0.5)  # faster clicks are refused
    event = {"kind": "click", "search_id": answer["search_id"], "results": ids(answer)}
    event["image_id"] = ids(answer)[2]
    response = server.post("/v1/feedback", json=event).json()
    assert response["new"] and response["num_preferences"] == 2
    rows = deployment.store.read("preferences", where="query = 'a clicked dog'").to_pylist()
    assert {(row["winner"], row["loser"], row["source"]) for row in rows} == {
        (ids(answer)[2], other, "human") for other in ids(answer)[:2]
    }
    assert not server.post("/v1/feedback", json=event).json()["new"]


def test_ingested_image_is_found_at_once_and_a_deleted_one_nowhere(server, deployment):
    folder, name = deployment.folder / "photos", "plum.png"
    folder.mkdir()
    Image.new("RGB", (50, 50), "plum").save(folder / name)
    data = (folder / name).read_bytes()
    new, image = hashlib.sha256(data).hexdigest(), {"data": base64.b64encode(data).decode()}
    command = [
        sys.executable,
        "-m",
        "jobs.ingest",
        "--profile",
        deployment.profile,
        "--source",
        str(folder),
    ]
    stdout = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    live = deployment.encoders["live"].fingerprint  # ingest embeds with another one, the baseline
    assert json.loads(stdout.splitlines()[-1])["other_encoders"][live]["num_embedded"] == 1
    for system in ("live", "baseline"):
        assert ids(ask(server, image=image, k=1, system=system)) == [new]
    page = ask(server, image=image, k=1)
    preview = server.get(f"/v1/images/{new}/preview").content
    assert Image.open(io.BytesIO(preview)).size == (50, 50)
    assert server.delete(f"/v1/images/{new}").json()["num_rows"] == 3
    assert new not in ids(ask(server, image=image, k=MAX_K))
    assert server.get(f"/v1/images/{new}/preview").status_code == 404
    assert server.delete(f"/v1/images/{new}").status_code == 404
    older = ask(server, image=image, k=3, cursor=page["next"])
    assert older["results"] and new not in ids(older)


def test_promotion_is_followed_without_mixed_answers(server, deployment):
    store, encoders = deployment.store, deployment.encoders
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
            assert ids(answer) == [deployment.axes[alias][axis] for axis in np.argsort(-vector)[:3]]
            if answer["encoder"] == after:
                break
            time.sleep(0.05)
        assert after in seen
        second = ask(server, query="a dog", k=3, cursor=first["next"])
        assert second["encoder"] == before  # later pages keep the encoder of the first
    finally:
        store.set_alias("live", before)


def test_dead_replica_is_reported_with_503_and_restarts(server):
    """A request that the replica held when it died may fail in HAProxy's own way; later ones get a 503."""
    title = replica_title("kallos", "Search")
    for process, words in command_lines(psutil.Process().children(recursive=True)).items():
        if title in "".join(words):
            process.kill()
    end, codes = time.monotonic() + START_TIMEOUT_S, []
    while time.monotonic() < end:
        try:
            answer = server.post("/v1/search", json={"query": "a dog"})
        except httpx.RemoteProtocolError:
            assert not codes, "a connection was closed although the replica was known to be dead"
            continue
        if answer.status_code == 200 and codes:
            return
        if answer.status_code == 503:
            codes.append(answer.json()["error"]["code"])
            assert codes[-1] == "no_replica" and answer.headers["retry-after"]
        else:
            assert answer.status_code in (200, 500) and not codes
        time.sleep(0.1)
    raise AssertionError(f"the replica did not restart; the errors were {set(codes)}")
