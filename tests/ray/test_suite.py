"""The evaluation suite on one small studio: real labelling, training, judging, and a page of it all."""

import json

import pytest
import yaml

from cluster.profile import PROFILES
from jobs.evaluate.config import EvaluateConfig
from jobs.evaluate.job import run
from lab.suite import job as suite

VARIANTS = (
    suite.Variant("source", "lmm_score", {"source": "lmm_score"}),
    suite.Variant("source", "scorer", {"source": "scorer"}),
    suite.Variant("grid", "u 5, v 5, stride 4", {"rows": 5, "columns": 5, "stride": 4}),
)


@pytest.fixture(scope="module")
def config(ray_cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    profile = yaml.safe_load((PROFILES / "mini.yaml").read_text())
    profile["align"] |= {"epochs": 2, "num_workers": 1}
    (folder / "short.yaml").write_text(yaml.safe_dump(profile))
    return EvaluateConfig(
        suite="full",
        profile=str(folder / "short.yaml"),
        num_seeds=1,
        num_images=1000,
        num_train_queries=8,
        num_queries=6,
        num_caption_queries=40,
        num_teacher_captions=2,
        num_resamples=200,
        num_sheets=2,
        out=str(folder / "out"),
    )


@pytest.fixture(scope="module")
def measured(config):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite, "VARIANTS", VARIANTS)
        patch.setattr(suite, "TEXT_EPOCHS", 1)
        yield run(config)


def test_every_system_and_table_is_measured(measured):
    assert all(
        measured["metrics"][system]["aesthetic@5"] for system in ("baseline", "teacher", "aligned", "text")
    )
    assert [row["name"] for row in measured["sweep"]["both"]] == ["0.0", "0.25", "0.5", "0.75", "1.0"]
    assert len(measured["styles"]) == 6 and len(measured["judge_table"]) == 6
    assert [row["name"] for row in measured["ablations"]] == [variant.name for variant in VARIANTS]
    assert [row["own"] for row in measured["ablations"]] == [True, False, True]
    assert len(measured["targets"]) == 10


def test_each_epoch_is_measured_and_the_last_is_where_the_curve_ends(measured):
    for mode, num_epochs in (("both", 2), ("text", 1)):
        followed, curve = measured["training"][mode], measured["sweep"][mode]
        assert [row["name"] for row in followed] == [str(epoch) for epoch in range(num_epochs + 1)]
        for metric in ("recall@1", "aesthetic@5", "zero_shot", "vendi@10"):
            assert followed[0][metric]["value"] == curve[0][metric]["value"]
            assert followed[-1][metric]["value"] == pytest.approx(curve[-1][metric]["value"], abs=0.02)


def test_the_curve_goes_through_before_and_after(measured):
    """Where the image tower stands still the same vectors give the same figures; else previews, not
    originals, are embedded, and the few votes of so small a studio may turn.
    """
    where = {row["name"]: row for row in measured["sweep"]["text"]}
    moved = {row["name"]: row for row in measured["sweep"]["both"]}
    own = str(measured["wise_ft_alpha"])
    for name, system in (("0.0", "baseline"), (own, "text")):
        for metric in ("recall@1", "aesthetic@5", "hpir_aesthetic"):
            found = measured["metrics"][system][metric]["value"]
            assert where[name][metric]["value"] == pytest.approx(found, abs=0.03)
    for metric, most in (("recall@1", 0.05), ("aesthetic@5", 0.05), ("hpir_aesthetic", 0.12)):
        found = measured["metrics"]["aligned"][metric]["value"]
        assert moved[own][metric]["value"] == pytest.approx(found, abs=most)


def test_started_again_it_does_nothing_anew(config, measured, monkeypatch):
    monkeypatch.setattr(suite, "VARIANTS", VARIANTS)
    monkeypatch.setattr(suite, "TEXT_EPOCHS", 1)
    again = run(config)
    for same in ("metrics", "difference", "win_rate", "sweep", "training", "ablations", "num_preferences"):
        assert again[same] == measured[same], same
    assert again["seconds"]["total"] < measured["seconds"]["total"] / 2
    assert again["went_on"] and not measured["went_on"]


def test_the_page_is_drawn_again_from_what_lies_there(config, measured, tmp_path):
    page = tmp_path.joinpath(measured["report"])
    before = page.read_text()
    report = page.with_name("report.json")
    told = json.loads(report.read_text())
    told["targets"][0]["quantity"] = "a renamed quantity"
    report.write_text(json.dumps(told))
    run(EvaluateConfig(report=True, out=config.out))
    assert "a renamed quantity" in page.read_text() and "a renamed quantity" not in before
