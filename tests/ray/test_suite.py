"""The suite on one small studio: real labelling, training, judging, and its page."""

import json

import pytest
import yaml

from cluster.profile import PROFILES
from jobs.evaluate.config import SYSTEMS
from lab.redraw.config import RedrawConfig
from lab.redraw.job import run as redraw
from lab.suite import variants
from lab.suite.config import SuiteConfig
from lab.suite.job import run

# The fixture runs the whole suite, which takes six minutes on two free cores and longer on busy ones.
pytestmark = pytest.mark.timeout(1800)
VARIANTS = (
    variants.TrainingVariant("source", "lmm_score", {"source": "lmm_score"}),
    variants.TrainingVariant("source", "scorer", {"source": "scorer"}),
    variants.TrainingVariant("grid", "u 5, v 5, stride 4", {"rows": 5, "columns": 5, "stride": 4}),
)


@pytest.fixture(scope="module")
def config(ray_cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    profile = yaml.safe_load((PROFILES / "mini.yaml").read_text())
    profile["align"] |= {"epochs": 2, "num_workers": 1}
    # One of the alphas of the WiSE-FT curve, so that the curve passes through the evaluated encoders.
    profile["guard"] |= {"wise_ft_alpha": 0.75, "max_recall_drop": 0.3}
    (folder / "short.yaml").write_text(yaml.safe_dump(profile))
    return SuiteConfig(
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
def measured(config, few_phrases):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "ABLATION_VARIANTS", VARIANTS)
        patch.setattr(variants, "TEXT_EPOCHS", 1)
        yield run(config)


def test_every_system_and_table_is_measured(measured):
    assert list(measured["systems"]) == list(SYSTEMS)
    assert all(measured["systems"][system]["aesthetic@5"]["ci95"] for system in SYSTEMS)
    assert measured["differences"]["aligned_minus_best_null"]["image_recall@1"]["ci95"]
    assert measured["win_rate"]["aligned_vs_suffix"]["people"]["ci95"]
    assert [row["name"] for row in measured["sweep"]["both"]] == ["0.0", "0.25", "0.5", "0.75", "1.0"]
    assert all(row["hpir_accuracy"]["ci95"] and row["shown"] for row in measured["styles"])
    assert len(measured["styles"]) == 6 and len(measured["judge_table"]) == 6
    assert [row["name"] for row in measured["ablations"]] == [variant.name for variant in VARIANTS]
    assert [row["own"] for row in measured["ablations"]] == [True, False, True]
    assert len(measured["targets"]) == 26 and all(row["ci95"] for row in measured["targets"])


def test_metrics_by_epoch_start_and_end_with_the_wise_ft_curve(measured):
    for mode, num_epochs in (("both", 2), ("text", 1)):
        followed, curve = measured["training"][mode], measured["sweep"][mode]
        assert [row["name"] for row in followed] == [str(epoch) for epoch in range(num_epochs + 1)]
        for metric in ("recall@1", "aesthetic@5", "zero_shot", "vendi@10"):
            assert followed[0][metric]["value"] == curve[0][metric]["value"]
            assert followed[-1][metric]["value"] == pytest.approx(curve[-1][metric]["value"], abs=0.02)


def test_wise_ft_curve_passes_through_the_evaluated_encoders(measured):
    """Mode `text` uses the same vectors. Mode `both` embeds previews instead of originals, so figures differ
    slightly, and more for the few votes of so small a studio.
    """
    where = {row["name"]: row for row in measured["sweep"]["text"]}
    moved = {row["name"]: row for row in measured["sweep"]["both"]}
    own = {mode: str(alphas[0]) for mode, alphas in measured["wise_ft_alpha"].items()}
    for name, system in (("0.0", "baseline"), (own["text"], "text")):
        for metric in ("recall@1", "aesthetic@5", "hpir_aesthetic"):
            found = measured["systems"][system][metric]["value"]
            assert where[name][metric]["value"] == pytest.approx(found, abs=0.03)
    for metric, most in (("recall@1", 0.05), ("aesthetic@5", 0.05), ("hpir_aesthetic", 0.12)):
        found = measured["systems"]["aligned"][metric]["value"]
        assert moved[own["both"]][metric]["value"] == pytest.approx(found, abs=most)


def test_second_run_resumes_and_repeats_nothing(config, measured, monkeypatch):
    monkeypatch.setattr(variants, "ABLATION_VARIANTS", VARIANTS)
    monkeypatch.setattr(variants, "TEXT_EPOCHS", 1)
    again = run(config)
    for same in ("systems", "differences", "win_rate", "sweep", "training", "ablations", "num_preferences"):
        assert again[same] == measured[same], same
    assert again["seconds"]["total"] < measured["seconds"]["total"] / 2
    assert again["resumed"] and not measured["resumed"]


def test_redraw_reads_the_report_of_the_folder(config, measured, tmp_path):
    page = tmp_path.joinpath(measured["report"])
    before = page.read_text()
    report = page.with_name("report.json")
    document = json.loads(report.read_text())
    document["targets"][0]["quantity"] = "a renamed quantity"
    report.write_text(json.dumps(document))
    redraw(RedrawConfig(folder=config.out))
    assert "a renamed quantity" in page.read_text() and "a renamed quantity" not in before
