"""`beauty` in a search: the axis of an encoder, where it comes from, and which values are refused."""

from types import SimpleNamespace

import numpy as np
import pytest
from fake_service import FakeService, fake_app, local_client

from actors.nulls.axis import Axis
from actors.scorers import PROMPT_PAIRS
from cluster.tables import EncoderRecord
from serve_app.http.routes.page import PAGE
from serve_app.models import MAX_BEAUTY
from serve_app.search.beauty import PROMPT_STRENGTH, Nulls, fitted_nulls, prompt_axis, shift
from serve_app.search.systems import Systems

FITTED = {"suffix": ", golden light", "axis": [0.6, 0.8], "strength": 0.3, "loss": 0.5}


def encode_texts(texts):
    """Good words point to the right, and "beautiful" points up as well; bad words point to the left."""
    good = {good for good, _ in PROMPT_PAIRS}
    vectors = [(1.0 if text in good else -1.0, 7.0 if text == "beautiful" else 0.0) for text in texts]
    return np.array(vectors, np.float32)


def test_axis_of_the_prompts_is_the_mean_of_good_minus_bad():
    axis = prompt_axis(encode_texts)
    expected = np.array([2.0, 7.0 / len(PROMPT_PAIRS)])
    np.testing.assert_allclose(axis.direction, expected / np.linalg.norm(expected), atol=1e-6)
    assert (axis.strength, axis.direction.dtype) == (PROMPT_STRENGTH, np.float32)


def test_nulls_are_read_from_the_metrics_of_an_aligned_encoder():
    nulls = fitted_nulls({"align": {"nulls": FITTED}})
    assert nulls and (nulls.suffix, nulls.axis.strength) == (", golden light", 0.3)
    np.testing.assert_allclose(nulls.axis.direction, [0.6, 0.8], atol=1e-6)
    assert fitted_nulls({}) is fitted_nulls({"align": {"loss": 1.0}}) is None


def test_shift_moves_by_strength_times_beauty_and_normalises_again():
    axis = Axis(np.array([0.0, 1.0], np.float32), 0.5)
    query = np.array([1.0, 0.0], np.float32)
    np.testing.assert_allclose(shift(query, axis, 2.0), np.array([1.0, 1.0]) / np.sqrt(2), atol=1e-6)
    np.testing.assert_array_equal(shift(query, axis, 0.0), query)


PROMPTS = Axis(np.ones(2, np.float32), 0.5)


def system(fingerprint, parent="", suffix=None, strength=0.3) -> SimpleNamespace:
    """An open system; `suffix` of the nulls that were fitted when its encoder was aligned."""
    record = EncoderRecord(encoder=fingerprint, parent=parent, checkpoint="nowhere", dim=2)
    nulls = None if suffix is None else Nulls(suffix, Axis(np.zeros(2, np.float32), strength))
    return SimpleNamespace(
        fingerprint=fingerprint, record=record, nulls=nulls, prompt_axis=PROMPTS, measured_at=None
    )


@pytest.fixture
def follow(store):
    """A function that makes the systems of a store with these encoders and aliases."""

    def make(*opened, **aliases) -> Systems:
        by_name = {one.fingerprint: one for one in opened}
        for one in opened:
            store.register_encoder(one.record)
        for alias, name in aliases.items():
            store.set_alias(alias, name)
        return Systems(store, ("live", "baseline"), lambda name, measured_at, before: by_name[name])

    return make


def test_fitted_axis_belongs_to_the_parent_of_the_aligned_encoder(follow):
    baseline, aligned = system("a" * 16), system("b" * 16, "a" * 16, ", of the live one")
    candidate = system("c" * 16, "a" * 16, ", of the candidate")
    systems = follow(baseline, aligned, candidate, baseline="a" * 16, live="b" * 16, candidate="c" * 16)
    assert systems.nulls("a" * 16).suffix == ", of the live one"
    assert systems.axis(baseline) is aligned.nulls.axis
    assert systems.axis(aligned) is systems.axis(candidate) is PROMPTS


def test_axis_is_fitted_from_the_moment_when_an_aligned_encoder_is_open(follow, store):
    baseline, aligned = system("a" * 16), system("b" * 16, "a" * 16, ", golden light")
    systems = follow(baseline, aligned, baseline="a" * 16)
    assert systems.axis(systems.get("baseline")) is PROMPTS
    store.set_alias("candidate", "b" * 16)
    systems.refresh()
    assert systems.axis(systems.get("baseline")) is aligned.nulls.axis


@pytest.mark.parametrize("value", ["-0.1", str(MAX_BEAUTY + 0.1), "NaN", "Infinity", '"1"', "true", "null"])
def test_beauty_out_of_range_or_of_another_type_is_refused(value):
    body = f'{{"query": "a boat", "beauty": {value}}}'
    answer = local_client(fake_app()).post(
        "/v1/search", content=body, headers={"content-type": "application/json"}
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["field"]) == (422, "invalid_value", "beauty")


def test_beauty_is_0_unless_given_and_searches_of_a_batch_have_their_own():
    service = FakeService()
    body = {"searches": [{"query": "a"}, {"query": "b", "beauty": 1}, {"query": "c", "beauty": MAX_BEAUTY}]}
    assert local_client(fake_app(service)).post("/v1/search", json=body).status_code == 200
    assert sorted(request.beauty for request, _ in service.searches) == [0.0, 1.0, MAX_BEAUTY]


def test_axis_that_moves_nothing_is_replaced_by_that_of_the_prompts(follow):
    baseline, aligned = system("a" * 16), system("b" * 16, "a" * 16, "", strength=0.0)
    assert follow(baseline, aligned, baseline="a" * 16, live="b" * 16).axis(baseline) is PROMPTS


def test_healthz_says_where_the_axis_comes_from():
    health = local_client(fake_app()).get("/healthz").json()
    assert health["systems"]["live"]["beauty"] == {"source": "prompts", "strength": 0.5}
    assert health["suffix"] is None
    fitted = FakeService()
    fitted.axis, fitted.suffix = lambda system: Axis(np.ones(4, np.float32), 0.7), ", golden light"
    health = local_client(fake_app(fitted)).get("/healthz").json()
    assert health["systems"]["live"]["beauty"] == {"source": "fitted", "strength": 0.7}
    assert health["suffix"] == ", golden light"


def test_slider_of_the_page_has_the_range_of_the_api():
    assert f'id="beautiful" type="range" min="0" max="{MAX_BEAUTY:g}"' in (PAGE / "index.html").read_text()
