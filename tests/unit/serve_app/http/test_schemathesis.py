"""Generated requests: every response matches the OpenAPI document, and none is a 500.

KALLOS_SCHEMATHESIS_CASES: number of requests to the fake service, and as many to the real one. The test
report ends with the number that was sent.
"""

import itertools
import json
import os
import shutil
import time
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest
import schemathesis
from fake_service import FakeService, fake_app, http_server
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis.config import SchemathesisConfig

from actors.encoder import Encoder
from actors.images import preview_jpeg
from cluster.profile import ROOT, Serve, load_profile
from cluster.tables import SCHEMAS, EncoderRecord, Store, embeddings_schema, embeddings_table, now
from serve_app.feedback.events import make_tables
from serve_app.feedback.signed_ids import SignedIds
from serve_app.http.api import make_api
from serve_app.http.keys import Keyring
from serve_app.http.middleware import KeyCheck, document_keys
from serve_app.metrics import Metrics
from serve_app.search.service import Service
from serve_app.search.systems import Systems, opener

KEY = "k" * 16
NUM_CASES = int(os.environ.get("KALLOS_SCHEMATHESIS_CASES", "200"))
HERE = "http://localhost"
NUM_IMAGES = 60
TIMEOUT_S = 60  # for a busy machine
# A request that matches the document may still be refused: JSON Schema accepts 6.0 as a whole number, and
# something may be switched off, deleted, or rate-limited.
CHECKS = {
    "positive_data_acceptance": {"expected-statuses": ["2xx", "304", "403", "404", "410", "422", "429"]}
}
CONFIG = SchemathesisConfig.from_dict({"checks": CHECKS})


def document_of(app) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_asgi("/openapi.json", app, config=CONFIG, headers={"Host": "localhost"})


def with_keys(app):
    app.add_middleware(KeyCheck, keyring=Keyring({"ann": KEY}), wrong_per_minute=10**6)
    document_keys(app)
    return app


def document_of_real_service() -> dict:
    """The OpenAPI document of the real service, built without its models."""
    fake = FakeService()
    fake.system_names = ("live", "baseline", "candidate", "suffix", "axis")
    return fake_app(fake, allow_delete=True).openapi()


def seeded(share: float):
    """Settings for this share of the cases, divided among the operations."""
    return settings(
        max_examples=max(1, round(share * NUM_CASES / sum(1 for _ in open_to_all.get_all_operations()))),
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )


open_to_all = document_of(fake_app(allow_delete=True))
closed = document_of(with_keys(fake_app(allow_delete=True)))
real = schemathesis.openapi.from_dict(document_of_real_service(), config=CONFIG)


@pytest.fixture
def sent(record_property):
    """Sends a case and checks the response; reports the number of cases to pytest."""
    numbers = itertools.count(1)
    last = 0

    def send(case, **options):
        nonlocal last
        last = next(numbers)
        return case.call_and_validate(**options, timeout=TIMEOUT_S)

    yield send
    record_property("num_generated_requests", last)


@open_to_all.parametrize()
@seeded(0.75)
def test_every_response_is_documented(case, sent):
    sent(case, base_url=HERE)


@closed.parametrize()
@seeded(0.25)
def test_every_response_with_keys_is_documented(case, sent):
    sent(case, base_url=HERE, headers={"Authorization": f"Bearer {KEY}"})


# ---- the real service over a real store, with the shipped encoder


def filled(folder: str) -> Store:
    """A store with images of all colours, embedded by the shipped encoder."""
    store, checkpoint = Store(folder, fresh=True), str(ROOT / "models/mini/encoder")
    encoder = Encoder.load(checkpoint)
    store.register_encoder(EncoderRecord(encoder=encoder.fingerprint, checkpoint=checkpoint, dim=encoder.dim))
    for alias in ("baseline", "live"):
        store.set_alias(alias, encoder.fingerprint)
    colours = np.random.default_rng(0).integers(256, size=(NUM_IMAGES, 3))
    pictures = [Image.new("RGB", (96, 80), tuple(map(int, colour))) for colour in colours]
    vectors = encoder.encode_images(np.stack([encoder.pixels(picture) for picture in pictures]))
    shared = [
        {"image_id": f"{number:064x}", "caption": f"colour {number}", "width_px": 96, "height_px": 80,
         "tags": ["flat"], "source": "test", "added_at": now()}
        for number in range(NUM_IMAGES)
    ]  # fmt: skip
    images = [
        {**row, "uri": "", "detailed_caption": "", "preview": preview_jpeg(picture)}
        for row, picture in zip(shared, pictures, strict=True)
    ]
    rows = [{**row, "vector": vector, "aesthetic": 0.5} for row, vector in zip(shared, vectors, strict=True)]
    store.merge("images", pa.Table.from_pylist(images, SCHEMAS["images"]), on=["image_id"])
    table = pa.Table.from_pylist(rows, embeddings_schema(encoder.dim))
    store.merge(embeddings_table(encoder.fingerprint), table, on=["image_id"])
    make_tables(store)
    return store


def service_api(store: Store) -> FastAPI:
    """The real app over the store."""
    profile = load_profile("mini", store=store.uri)
    systems = Systems(store, ("live", "baseline"), opener(profile, store, Metrics()))
    config = Serve(allow_delete=True)
    service = Service(store, systems, config, Metrics(), signed_ids=SignedIds(b"secret"))
    return make_api(service, config)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of the real app, in this process."""
    with http_server(service_api(filled(str(tmp_path_factory.mktemp("real") / "store")))) as address:
        yield address


@pytest.fixture(scope="module")
def answer(address):
    """The answer to a search, old enough for feedback on it."""
    found = httpx.post(f"{address}/v1/search", json={"query": "red", "k": 8}).raise_for_status().json()
    time.sleep(1.1)
    return found


turns = itertools.count()


def use_existing_ids(case, answer: dict) -> None:
    """Make every other valid case refer to an existing image or answer."""
    if not case.meta.generation.mode.is_positive or next(turns) % 2:
        return
    ids = [row["image_id"] for row in answer["results"]]
    if "image_id" in (case.path_parameters or {}):
        others = sorted({f"{number:064x}" for number in range(NUM_IMAGES)} - {*ids})  # these may be deleted
        case.path_parameters = {**case.path_parameters, "image_id": others[next(turns) % len(others)]}
    if case.path == "/v1/feedback":
        event = {
            "kind": case.body["kind"],
            "search_id": answer["search_id"],
            "results": ids,
            "image_id": ids[0],
        }
        case.body = event | ({"over": ids[next(turns) % len(ids)]} if event["kind"] == "prefer" else {})


def test_document_of_the_real_service_is_the_tested_one(address):
    assert httpx.get(f"{address}/openapi.json").json() == document_of_real_service()


@real.parametrize()
@seeded(1.0)
def test_every_response_of_the_real_service_is_documented(case, sent, address, answer):
    use_existing_ids(case, answer)
    response = sent(case, base_url=address)
    cursor = response.status_code == 200 and case.path == "/v1/search" and response.json().get("next")
    if cursor:
        case.body = {**case.body, "cursor": cursor}
        assert sent(case, base_url=address).status_code == 200


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())  # lone surrogates too: they become escapes in JSON
    | st.sampled_from(["live", "0" * 64, "20300101", "2030-01-01", "\u200b", "\0", 10**9, 10**400, -1e308]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("path", ["/v1/search", "/v1/feedback"])
def test_any_json_value_in_any_field_is_answered_or_refused(path, address, answer):
    names = real.raw_schema["components"]["schemas"]
    fields = [*names["SearchRequest" if "search" in path else "FeedbackRequest"]["properties"], "searches"]
    inner = {"filters": [*names["Filters"]["properties"]], "image": [*names["ImageInput"]["properties"]],
             "diversity": [*names["Diversity"]["properties"]]}  # fmt: skip
    ids = [row["image_id"] for row in answer["results"]]
    event = {"kind": "click", "search_id": answer["search_id"], "results": ids, "image_id": ids[0]}
    valid = {"query": "red"} if path == "/v1/search" else event

    client = httpx.Client(base_url=address, headers={"Content-Type": "application/json"})

    @settings(seeded(0.2), max_examples=NUM_CASES // 2)
    @given(st.sampled_from(fields), VALUES, st.data())
    def check(name, value, data):
        if name in inner and data.draw(st.booleans()):
            value = {data.draw(st.sampled_from(inner[name])): value}
        body = json.dumps({**valid, name: value})  # with NaN and Infinity
        response = client.post(path, content=body)
        assert response.status_code in (200, 400, 403, 404, 410, 422, 429), response.text
        assert response.status_code == 200 or response.json()["error"]["message"].endswith(".")

    with client:
        check()


# ---- a store that fails while the server runs


def moved(store: Path) -> None:
    store.rename(store.with_name("moved"))


def emptied(store: Path) -> None:
    for table in store.glob("*.lance"):
        shutil.rmtree(table)


def truncated(store: Path) -> None:
    for file in store.glob("*.lance/**/data/*"):
        os.truncate(file, 0)


REQUESTS = {
    "search": ("POST", "/v1/search", {"query": "green"}),
    "filtered": ("POST", "/v1/search", {"query": "green", "filters": {"min_width_px": 9}}),
    "diverse": ("POST", "/v1/search", {"query": "green", "diversity": {}}),
    "by image": ("POST", "/v1/search", {"image": {"image_id": f"{1:064x}"}}),
    "preview": ("GET", f"/v1/images/{1:064x}/preview", None),
    "heat map": ("GET", f"/v1/images/{1:064x}/why?query=green", None),
    "delete": ("DELETE", f"/v1/images/{1:064x}", None),
}


@pytest.mark.parametrize("fail", [moved, emptied, truncated])
def test_requests_to_a_store_that_fails_are_answered_with_503(fail, tmp_path):
    folder = tmp_path / "store"
    app = service_api(filled(str(folder)))
    with http_server(app) as address:
        found = httpx.post(f"{address}/v1/search", json={"query": "red", "k": 4}).raise_for_status().json()
        ids = [row["image_id"] for row in found["results"]]
        event = {"kind": "click", "search_id": found["search_id"], "results": ids, "image_id": ids[0]}
        time.sleep(1.1)
        fail(folder)
        for method, path, body in (*REQUESTS.values(), ("POST", "/v1/feedback", event)):
            answer = httpx.request(method, f"{address}{path}", json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready"), path
            assert str(folder) not in answer.text, path
