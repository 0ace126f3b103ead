"""Made-up requests against the OpenAPI document: no mistake of ours, no answer that it does not tell of.

KALLOS_SCHEMATHESIS_CASES: how many requests of each half, the made service and the real one; more find more.
How many were sent is told when the tests have run.
"""

import itertools
import os
import time

import httpx
import numpy as np
import pyarrow as pa
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from made_service import MadeService, listening, made_app
from PIL import Image
from schemathesis.config import SchemathesisConfig

from actors.encoder import Encoder
from actors.images import preview_jpeg
from cluster.profile import ROOT, Serve, load_profile
from cluster.tables import SCHEMAS, EncoderRecord, Store, embeddings_schema, embeddings_table, now
from serve_app.feedback.events import make_tables
from serve_app.feedback.signed_ids import Tickets
from serve_app.http.api import make_api
from serve_app.http.keys import Keyring
from serve_app.http.metrics import Metrics
from serve_app.http.middleware import KeyCheck, document_keys
from serve_app.search.service import Service
from serve_app.search.systems import Systems, opener

KEY = "k" * 16
NUM_CASES = int(os.environ.get("KALLOS_SCHEMATHESIS_CASES", "200"))
HERE = "http://localhost"
NUM_IMAGES = 60
TIMEOUT_S = 60  # of a machine that has much else to do
# A request may fit the document and still be refused: JSON Schema takes 6.0 for a whole number; and
# something may be switched off, gone, or asked for too soon.
CHECKS = {
    "positive_data_acceptance": {"expected-statuses": ["2xx", "304", "403", "404", "410", "422", "429"]}
}
CONFIG = SchemathesisConfig.from_dict({"checks": CHECKS})


def document_of(app) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_asgi("/openapi.json", app, config=CONFIG, headers={"Host": "localhost"})


def with_keys(app):
    app.add_middleware(KeyCheck, keyring=Keyring({"ann": KEY}))
    document_keys(app)
    return app


def as_real() -> dict:
    """The document of the real service's app, without its models."""
    made = MadeService()
    made.system_names = ("live", "baseline", "candidate")
    return made_app(made, allow_delete=True).openapi()


def seeded(share: float):
    """That share of the cases, spread over the operations."""
    return settings(
        max_examples=max(1, round(share * NUM_CASES / sum(1 for _ in open_to_all.get_all_operations()))),
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )


open_to_all = document_of(made_app(allow_delete=True))
closed = document_of(with_keys(made_app(allow_delete=True)))
real = schemathesis.openapi.from_dict(as_real(), config=CONFIG)


@pytest.fixture
def sent(record_property):
    """Sends a case and checks the answer; how often is told to pytest."""
    counted = itertools.count(1)
    last = 0

    def send(case, **options):
        nonlocal last
        last = next(counted)
        return case.call_and_validate(**options, timeout=TIMEOUT_S)

    yield send
    record_property("num_made_up_requests", last)


@open_to_all.parametrize()
@seeded(0.75)
def test_every_answer_is_documented(case, sent):
    sent(case, base_url=HERE)


@closed.parametrize()
@seeded(0.25)
def test_every_answer_is_documented_where_keys_are_required(case, sent):
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


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The real app at an address of this machine, from where a search was answered a moment ago."""
    store = filled(str(tmp_path_factory.mktemp("real") / "store"))
    profile = load_profile("mini", store=store.uri)
    systems = Systems(store, ("live", "baseline"), opener(profile, store, Metrics()))
    config = Serve(allow_delete=True)
    service = Service(store, systems, config, Metrics(), tickets=Tickets(b"secret"))
    with listening(make_api(service, config)) as address:
        yield address


@pytest.fixture(scope="module")
def answer(address):
    """A search's answer, old enough to be judged by a person."""
    found = httpx.post(f"{address}/v1/search", json={"query": "red", "k": 8}).raise_for_status().json()
    time.sleep(1.1)
    return found


turns = itertools.count()


def with_what_is_there(case, answer: dict) -> None:
    """Every other case that fits the document is about an image or answer that exists."""
    if not case.meta.generation.mode.is_positive or next(turns) % 2:
        return
    ids = [row["image_id"] for row in answer["results"]]
    if "image_id" in (case.path_parameters or {}):
        others = sorted({f"{number:064x}" for number in range(NUM_IMAGES)} - {*ids})  # those may be deleted
        case.path_parameters = {**case.path_parameters, "image_id": others[next(turns) % len(others)]}
    if case.path == "/v1/feedback":
        about = {
            "kind": case.body["kind"],
            "search_id": answer["search_id"],
            "results": ids,
            "image_id": ids[0],
        }
        case.body = about | ({"over": ids[next(turns) % len(ids)]} if about["kind"] == "prefer" else {})


def test_the_document_of_the_real_service_is_the_one_that_is_tried(address):
    assert httpx.get(f"{address}/openapi.json").json() == as_real()


@real.parametrize()
@seeded(1.0)
def test_every_answer_of_the_real_service_is_documented(case, sent, address, answer):
    with_what_is_there(case, answer)
    told = sent(case, base_url=address)
    following = told.status_code == 200 and case.path == "/v1/search" and told.json().get("next")
    if following:
        case.body = {**case.body, "cursor": following}
        assert sent(case, base_url=address).status_code == 200
