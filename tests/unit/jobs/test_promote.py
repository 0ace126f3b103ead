"""`kallos promote`: its checks and the rollback, on hand-made aliases, tables and guard figures."""

import pyarrow as pa
import pytest
import yaml
from pictures import encoded, gradient

from actors.encoder import Encoder, load_registered
from cluster.errors import UserError
from cluster.profile import PROFILES
from cluster.tables import SCHEMAS, EncoderRecord, embeddings_schema, embeddings_table, now
from jobs.promote import job
from jobs.promote.config import PromoteConfig
from jobs.promote.job import run
from lab.demo import job as demo

BASELINE, GOOD, BETTER, LAST = "b" * 16, "c" * 16, "d" * 16, "f" * 16
IMAGES = ["1", "2", "3"]
PREVIEW = encoded(gradient(8, 8))


def add_encoder(
    store, encoder: str, *, parent=BASELINE, drop: float | None = 0.01, images=IMAGES, checkpoint="none"
) -> None:
    """Register an encoder as `kallos align` does, and write its table with those images."""
    metrics = {"align": {"recall_drop": drop}}
    store.register_encoder(
        EncoderRecord(encoder=encoder, parent=parent, checkpoint=checkpoint, dim=2, metrics=metrics)
    )
    if images:
        rows = [{**image(identity), "vector": [1.0, 0.0], "aesthetic": 0.5} for identity in images]
        schema = embeddings_schema(2)
        rows = [{name: row[name] for name in schema.names} for row in rows]
        store.merge(embeddings_table(encoder), pa.Table.from_pylist(rows, schema), on=["image_id"])


def image(identity: str) -> dict:
    texts = dict.fromkeys(("uri", "caption", "detailed_caption", "source"), "")
    sizes = dict(width_px=8, height_px=8, preview=PREVIEW)
    return dict(image_id=identity, tags=[], added_at=now(), **texts, **sizes)


@pytest.fixture(autouse=True)
def loaded(monkeypatch) -> list[str]:
    """Records the encoders that are loaded, because there are no checkpoints."""
    names: list[str] = []
    monkeypatch.setattr(job, "load_registered", lambda record: names.append(record.encoder))
    return names


@pytest.fixture
def filled(store):
    rows = [image(identity) for identity in IMAGES]
    store.merge("images", pa.Table.from_pylist(rows, SCHEMAS["images"]), on=["image_id"])
    add_encoder(store, BASELINE, parent="", drop=None)
    store.set_alias("baseline", BASELINE)
    add_encoder(store, GOOD)
    store.set_alias("candidate", GOOD)
    return store


def promote(store, **changes) -> dict:
    return run(PromoteConfig(store=store.uri, **changes))


def refusal(store, **changes) -> str:
    before = store.aliases()
    with pytest.raises(UserError) as caught:
        promote(store, **changes)
    assert store.aliases() == before
    return str(caught.value)


def test_the_candidate_replaces_the_baseline_as_live(filled):
    report = {"live": GOOD, "before": BASELINE, "num_rows": 3, "recall_drop": pytest.approx(0.01)}
    assert promote(filled) == {**report, "changed": True, "dry_run": False}
    assert filled.alias("live") == GOOD
    assert promote(filled) == {**report, "before": GOOD, "changed": False, "dry_run": False}


def test_the_demo_applies_the_same_checks(filled):
    config = demo.DemoConfig(store=filled.uri)
    assert demo.promote(config) == "promoted to live: recall of the guard changed by -1.0 points"
    assert filled.alias("live") == GOOD
    add_encoder(filled, BETTER, images=["1"])
    filled.set_alias("candidate", BETTER)
    message = demo.promote(config)
    assert message.startswith("not promoted: ") and "lacks 2 of the 3 images" in message
    assert filled.alias("live") == GOOD


@pytest.mark.parametrize("changes", [{}, {"dry_run": True}])
def test_an_encoder_that_cannot_be_loaded_is_refused(filled, monkeypatch, changes):
    monkeypatch.setattr(job, "load_registered", load_registered)
    assert "encoder model 'none' is not a folder" in refusal(filled, **changes)


def test_a_checkpoint_that_now_holds_another_encoder_is_refused(filled, monkeypatch, tiny_encoder_folder):
    monkeypatch.setattr(job, "load_registered", load_registered)
    add_encoder(filled, BETTER, checkpoint=tiny_encoder_folder)
    held = Encoder.load(tiny_encoder_folder).fingerprint
    assert f"holds encoder {held}, no longer {BETTER}" in refusal(filled, encoder=BETTER)


def test_a_rollback_also_loads_its_encoder(filled, loaded):
    promote(filled)
    promote(filled, rollback=True)
    assert loaded == [GOOD, BASELINE]


def test_a_dry_run_checks_and_changes_nothing(filled):
    report = promote(filled, dry_run=True)
    assert (report["live"], report["changed"], report["dry_run"]) == (GOOD, True, True)
    assert "live" not in filled.aliases()
    add_encoder(filled, BETTER, drop=0.08)
    assert "0.080" in refusal(filled, encoder=BETTER, dry_run=True)


def test_an_unknown_encoder_is_refused(filled):
    assert "no encoder 'nobody'" in refusal(filled, encoder="nobody")


@pytest.mark.parametrize(
    ("images", "part"),
    [([], f"Encoder {BETTER} has no index"), (["1", "9"], f"encoder {BETTER} lacks 2 of the 3 images")],
)
def test_an_index_that_lacks_images_is_refused_with_the_command_that_completes_it(filled, images, part):
    add_encoder(filled, BETTER, images=images)
    message = refusal(filled, encoder=BETTER)
    assert part in message and f"kallos index --encoder {BETTER}" in message


def test_unreadable_images_without_a_vector_do_not_keep_an_encoder_from_going_live(filled, capsys):
    add_encoder(filled, BETTER, images=["1", "2"])
    assert f"encoder {BETTER} lacks 1 of the 3 images" in refusal(filled, encoder=BETTER)
    filled.open("images").update(where="image_id = '3'", values={"preview": b"no image", "uri": "/none"})
    assert promote(filled, encoder=BETTER)["num_rows"] == 2
    assert "lacks 1 of the 3 images" in capsys.readouterr().err


def test_a_larger_drop_of_recall_than_the_profile_allows_is_refused(filled, tmp_path):
    add_encoder(filled, BETTER, drop=0.04)
    message = refusal(filled, encoder=BETTER)
    assert "0.040 of recall" in message and "guard.max_recall_drop allows 0.03" in message
    assert promote(filled, encoder=BETTER, profile=guarded(tmp_path, max_recall_drop=0.04))["changed"]


def test_drops_of_consecutive_alignments_add_up(filled, tmp_path):
    """GOOD lost 0.01 against the baseline, BETTER 0.021 against GOOD, and LAST gained 0.002."""
    add_encoder(filled, BETTER, parent=GOOD, drop=0.021)
    message = refusal(filled, encoder=BETTER)
    assert "Encoder dddddddddddddddd lost 0.031 of recall in 2 alignments together (0.010, 0.021)" in message
    allowed = guarded(tmp_path, max_recall_drop=0.031)
    assert promote(filled, encoder=BETTER, profile=allowed)["recall_drop"] == pytest.approx(0.031)
    add_encoder(filled, LAST, parent=BETTER, drop=-0.002)
    assert promote(filled, encoder=LAST)["recall_drop"] == pytest.approx(0.029)


def test_an_unmeasured_alignment_among_the_ancestors_is_refused(filled, tmp_path):
    add_encoder(filled, BETTER, drop=None)
    add_encoder(filled, LAST, parent=BETTER)
    message = refusal(filled, encoder=LAST)
    assert "was not measured" in message and "2 alignments together (unknown, 0.010)" in message
    report = promote(filled, encoder=LAST, profile=guarded(tmp_path, num_captions=0))
    assert report["changed"] and report["recall_drop"] is None


@pytest.mark.parametrize("parents", [("e" * 16,), (BETTER,), (LAST, BETTER)])
def test_an_unregistered_parent_or_a_circle_of_parents_is_refused(filled, parents):
    """The encoders are BETTER and, where there are two parents, LAST."""
    for encoder, parent in zip((BETTER, LAST), parents, strict=False):
        add_encoder(filled, encoder, parent=parent)
    message = refusal(filled, encoder=BETTER)
    assert "was not measured" in message and "(unknown, 0.010" in message


def test_an_unmeasured_drop_is_refused_unless_the_guard_is_off(filled, tmp_path):
    add_encoder(filled, BETTER, drop=None)
    assert "was not measured" in refusal(filled, encoder=BETTER)
    report = promote(filled, encoder=BETTER, profile=guarded(tmp_path, num_captions=0))
    assert report["changed"] and report["recall_drop"] is None


def guarded(folder, **changes) -> str:
    values = yaml.safe_load((PROFILES / "mini.yaml").read_text())
    values["guard"] |= changes
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.mark.parametrize("encoder", ["baseline", "e" * 16])
def test_a_root_and_the_baseline_have_no_drop(filled, encoder):
    add_encoder(filled, "e" * 16, parent="", drop=None)
    promote(filled)
    assert promote(filled, encoder=encoder)["recall_drop"] is None


def test_a_rollback_restores_the_previous_encoder_and_a_second_one_undoes_it(filled):
    add_encoder(filled, BETTER)
    promote(filled)
    promote(filled, encoder=BETTER)
    back = promote(filled, rollback=True)
    assert (back["live"], back["before"], back["changed"]) == (GOOD, BETTER, True)
    assert promote(filled, rollback=True, dry_run=True)["live"] == BETTER
    assert filled.alias("live") == GOOD
    assert promote(filled, rollback=True)["live"] == filled.alias("live") == BETTER


def test_a_rollback_after_the_first_promotion_restores_the_baseline(filled):
    promote(filled)
    assert promote(filled, rollback=True)["live"] == filled.alias("live") == BASELINE


def test_a_rollback_without_an_earlier_encoder_is_refused(filled, store):
    assert "nothing to roll back to" in refusal(filled, rollback=True)
    promote(filled, encoder="baseline")
    assert "nothing to roll back to" in refusal(filled, rollback=True)


def test_a_rollback_to_an_index_that_lacks_images_is_refused(filled):
    promote(filled)
    new = pa.Table.from_pylist([image("4")], SCHEMAS["images"])
    filled.merge("images", new, on=["image_id"])
    assert f"encoder {BASELINE} lacks 1 of the 4 images" in refusal(filled, rollback=True)
