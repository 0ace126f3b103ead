"""Systems follow aliases and indexes: a real store, fake systems; at the end real tiny encoders."""

import pyarrow as pa
import pytest
from served import add_gallery
from tiny_encoder import write_tiny_encoder

from actors.encoder import Encoder
from cluster.errors import UserError
from cluster.profile import load_profile
from cluster.tables import SCHEMAS, EncoderRecord, Store, now
from serve_app.metrics import Metrics
from serve_app.search import systems as systems_module
from serve_app.search.systems import Systems, opener

DIM = 32
NAMES = ("a" * 16, "b" * 16, "c" * 16, "d" * 16)


class FakeSystem:
    def __init__(self, fingerprint, measured_at):
        self.fingerprint, self.measured_at = fingerprint, measured_at


@pytest.fixture
def setup(store):
    """A store with four encoders, the first one `live` and `baseline`; its systems; which were opened."""
    for name in NAMES:
        store.register_encoder(EncoderRecord(encoder=name, checkpoint="nowhere", dim=DIM))
    for alias in ("baseline", "live"):
        store.set_alias(alias, NAMES[0])
    opened = []

    def open_system(fingerprint, measured_at, before):
        opened.append((fingerprint, before))
        return FakeSystem(fingerprint, measured_at)

    return store, Systems(store, ("live", "baseline"), open_system), opened


def measure(store, fingerprint, recall_at_10=1.0, ef=200):
    row = {"encoder": fingerprint, "kind": "exact", "num_rows": DIM, "recall_at_10": recall_at_10}
    rows = pa.Table.from_pylist(
        [row | {"num_queries": 0, "ef": ef, "measured_at": now()}], SCHEMAS["indexes"]
    )
    store.merge("indexes", rows, on=["encoder", "measured_at"])


def test_previous_live_encoder_stays_open(setup):
    store, systems, _ = setup
    store.set_alias("baseline", NAMES[3])
    for name in (NAMES[1], NAMES[2], NAMES[0], NAMES[1]):  # three promotions and a rollback
        before = systems.get("live").fingerprint
        store.set_alias("live", name)
        systems.refresh()
        open_now = {name for name in NAMES if systems.by_encoder(name)}
        assert open_now == {name, before, NAMES[3]}


def test_of_two_encoders_that_lose_their_alias_the_default_one_stays_open(setup):
    store, systems, _ = setup
    store.set_alias("candidate", NAMES[1])
    systems.refresh()
    for alias, name in (("live", NAMES[2]), ("baseline", NAMES[2]), ("candidate", NAMES[3])):
        store.set_alias(alias, name)
    systems.refresh()
    assert {name for name in NAMES if systems.by_encoder(name)} == {NAMES[0], NAMES[2], NAMES[3]}


def test_remeasured_index_is_reopened_once_with_the_same_encoder(setup):
    store, systems, opened = setup
    before = systems.get("live")
    systems.refresh()
    assert opened == [(NAMES[0], None)]
    for name in (NAMES[1], NAMES[0]):  # the index of an encoder without alias is ignored
        measure(store, name)
        systems.refresh()
        systems.refresh()
    assert opened == [(NAMES[0], None), (NAMES[0], before)]
    assert systems.get("live") is systems.get("baseline") is systems.by_encoder(NAMES[0])
    assert systems.get("live") is not before


@pytest.mark.parametrize("error", [UserError("another checkpoint"), OSError("no such bucket")])
def test_broken_encoder_is_retried_after_a_minute_without_blocking_others(setup, monkeypatch, error):
    store, systems, opened = setup
    plain = systems._open

    def open_system(fingerprint, measured_at, before):
        if fingerprint != NAMES[1]:
            return plain(fingerprint, measured_at, before)
        opened.append((fingerprint, before))
        raise error

    monkeypatch.setattr(systems, "_open", open_system)
    now_s = 1000.0
    monkeypatch.setattr(systems_module.time, "monotonic", lambda: now_s)
    store.set_alias("live", NAMES[1])
    store.set_alias("candidate", NAMES[2])
    for _ in range(3):
        systems.refresh()
        assert str(error) in systems.errors["live"]
    assert systems.get("live").fingerprint == NAMES[0] and systems.get("candidate").fingerprint == NAMES[2]
    attempts = [name for name, _ in opened if name == NAMES[1]]
    assert len(attempts) == 1
    measure(store, NAMES[1])
    systems.refresh()
    now_s += systems_module.RETRY_S
    systems.refresh()
    assert len([name for name, _ in opened if name == NAMES[1]]) == 3
    monkeypatch.setattr(systems, "_open", plain)
    now_s += systems_module.RETRY_S
    systems.refresh()
    assert systems.errors == {} and systems.get("live").fingerprint == NAMES[1]


def test_broken_required_encoder_is_reported_in_one_sentence(setup):
    store, _, _ = setup

    def open_system(*args):
        raise OSError("no such bucket")

    with pytest.raises(UserError, match=f"{NAMES[0]} cannot be opened: OSError: no such bucket"):
        Systems(store, ("live",), open_system)


@pytest.fixture
def unindexed(tmp_path):
    """A profile, a store whose `baseline` is a tiny encoder without an index, and that encoder."""
    store = Store(str(tmp_path / "store"), fresh=True)
    checkpoint = write_tiny_encoder(tmp_path / "tiny")
    encoder = Encoder.load(checkpoint)
    store.register_encoder(EncoderRecord(encoder=encoder.fingerprint, checkpoint=checkpoint, dim=encoder.dim))
    store.set_alias("baseline", encoder.fingerprint)
    return load_profile("mini", store=store.uri), store, encoder


def test_reopened_system_reads_the_new_index_and_loads_no_weights(unindexed, monkeypatch):
    profile, store, encoder = unindexed
    add_gallery(store, encoder.dim, encoder.fingerprint, range(1))
    systems = Systems(store, ("baseline",), opener(profile, store, Metrics()))
    first = systems.get("baseline")
    assert first.axes == {} and first.retriever.effort.ef == 200
    add_gallery(store, encoder.dim, encoder.fingerprint, range(encoder.dim))
    measure(store, encoder.fingerprint, ef=400)
    monkeypatch.setattr(systems_module, "_load", None)
    systems.refresh()
    second = systems.get("baseline")
    assert "brightness" in second.axes and second.retriever.effort.ef == 400
    assert second.encoder is first.encoder and second.encode_text is first.encode_text
    assert second.search is not first.search
    assert first.axes == {} and first.retriever.effort.ef == 200, "a running search keeps its system"


def test_missing_index_is_refused_before_weights_are_loaded(unindexed, monkeypatch):
    profile, store, encoder = unindexed
    monkeypatch.setattr(systems_module, "_load", None)
    with pytest.raises(UserError, match=f"kallos index --encoder {encoder.fingerprint}"):
        Systems(store, ("baseline",), opener(profile, store, Metrics()))
