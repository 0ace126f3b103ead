"""The suite's report over made-up studios whose figures are known in advance."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest
from made_evaluation import KnownTruth, evaluation, image_row

from cluster.profile import load_profile
from cluster.tables import SCHEMAS, Store
from jobs.evaluate import output_files, summary
from jobs.evaluate.config import EvaluateConfig
from jobs.evaluate.figures import metrics, per_query
from lab.suite import job as suite
from lab.suite import report as suite_report
from lab.suite import summary as suite_summary

SEEDS = (3, 4)
CONFIG = EvaluateConfig(
    suite="full", seed=3, num_resamples=200, num_sheets=2, protocols=("ranker", "scorer", "cp_scorer")
)
EPOCHS = [
    {"loss_preference": 0.7, "loss_pt": 2.0, "rewards/accuracies": 0.5, "recall@10": 0.9},
    {"loss_preference": 0.6, "loss_pt": 2.1, "rewards/accuracies": 0.7, "recall@10": 0.8},
]


def constant(**values):
    """metric -> the same value for each of three queries; `aesthetic_at_5` stands for aesthetic@5."""
    names = {name.replace("_at_", "@"): value for name, value in values.items()}
    return {name: per_query.Series.even(np.full(3, value)) for name, value in names.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two equal studios as `measure_world` leaves them."""
    made = tmp_path_factory.mktemp("suite")
    for seed in SEEDS:
        world = made / f"seed{seed}"
        (world / "evaluate").mkdir(parents=True)
        store = Store(str(world / "store"))
        rows = pa.Table.from_pylist([image_row(number) for number in range(20)], SCHEMAS["images"])
        store.merge("images", rows, on=["image_id"])
        found = evaluation(KnownTruth(), with_text=True)
        output_files.write(output_files.of(found, CONFIG), world / "evaluate")
        document = summary.document(found, CONFIG)
        (world / "evaluate" / "report.json").write_text(json.dumps(document))
        reports = {
            "label": {"num_preferences": 9},
            "both": {"epochs": EPOCHS, "wise_ft_alpha": 0.5},
            "text": {"epochs": EPOCHS},
        }
        (world / "world.json").write_text(json.dumps(reports))
        curve = {
            str(a): constant(recall_at_1=0.9 - a / 10, recall_at_10=1 - a / 10, aesthetic_at_5=0.4 + a / 10)
            for a in (0.0, 1.0)
        }
        for mode in ("both", "text"):
            suite.write_series(curve, world / f"sweep_{mode}.parquet", {})
            epochs = {str(int(float(a))): found for a, found in curve.items()}
            suite.write_series(epochs, world / f"epochs_{mode}.parquet", {})
    first = made / f"seed{SEEDS[0]}"
    styles = {"original": constant(precision_at_5=0.7, aesthetic_at_5=0.4, aesthetics_of_accurate=0.6)}
    suite.write_series(styles, first / "styles.parquet", {})
    (first / "styles.json").write_text(
        json.dumps({"original": {"num_failed": 0, "example": "<b>a boat</b>"}})
    )
    suite.write_series({"lmm_pair": constant(aesthetic_at_5=0.5)}, first / "ablations.parquet", {})
    (first / "ablations.json").write_text(
        json.dumps({"lmm_pair": {"table": "source", "num_preferences": 9, "own": True}})
    )
    return made


@pytest.fixture(scope="module")
def document(folder):
    return suite_summary.document(folder, SEEDS, CONFIG, ["ablations"])


def test_figures_are_means_over_seeds_with_each_seeds_own(document):
    found = document["metrics"]["baseline"]["aesthetic@5"]
    assert found["value"] == pytest.approx((0.2 + 0.7 + (2 + 4) / 20 / 5) / 3, abs=1e-6)
    assert found["seeds"] == [found["value"]] * 2 and found["num_queries"] == 6
    assert document["difference"]["aligned"]["recall@10"]["value"] == 0.5
    assert document["metrics"]["baseline"]["zero_shot"]["value"] == 0.5


def test_seeds_are_drawn_apart_so_their_mean_is_surer_than_one():
    values, weights = np.random.default_rng(0).random(200), np.ones(200)
    one = metrics.estimate(values, weights, num_resamples=2000, seed=1)
    four = metrics.over_seeds([(values, weights)] * 4, num_resamples=2000, seed=1)
    assert four.value == pytest.approx(one.value)
    assert (four.high - four.low) / (one.high - one.low) == pytest.approx(0.5, rel=0.1)


def test_a_table_is_made_again_when_it_was_made_of_something_else(tmp_path):
    path = tmp_path / "sweep_both.parquet"
    assert not suite.is_made_of(path, {"encoder": "a"})
    suite.write_series({"0.0": constant(recall_at_1=0.5)}, path, {"encoder": "a"})
    assert suite.is_made_of(path, {"encoder": "a"}) and not suite.is_made_of(path, {"encoder": "b"})


def test_the_teacher_equals_after_so_all_of_its_gain_is_kept(document):
    assert document["gain"]["share_aligned"]["value"] == pytest.approx(1.0)
    gained = document["metrics"]["teacher"]["aesthetic@5"]["value"]
    before = document["metrics"]["baseline"]["aesthetic@5"]["value"]
    assert document["gain"]["teacher_over_baseline"]["value"] == pytest.approx(gained / before - 1, abs=1e-5)


def test_win_rates_and_judge_table_pool_the_seeds(document):
    rate = document["win_rate"]["aligned"]
    assert (rate["judge"]["wins"], rate["judge"]["ties"], rate["judge"]["losses"]) == (4, 2, 0)
    assert (rate["people"]["wins"], rate["people"]["ties"], rate["people"]["losses"]) == (2, 2, 2)
    rows = document["judge_table"]
    assert len(rows) == 6 and rows[0]["win_rate"]["num_queries"] == 4  # 2 differ, in each of 2 seeds
    # People value accuracy: the judge that looks at it agrees with them, the one of this test does not.
    by_name = {(row["protocol"], row["order_consistency"]): row["agreement"]["value"] for row in rows}
    assert by_name["ranker", True] == 0.5 and by_name["scorer", True] == 1.0


def test_targets_say_what_was_missed(document):
    met = {row["quantity"]: row["met"] for row in document["targets"]}
    assert met["share of that gain, mode both"] and not met["win rate of aligned over baseline, people"]


def test_tables_are_there_only_where_they_were_measured(document):
    assert [row["name"] for row in document["sweep"]["both"]] == ["0.0", "1.0"]
    assert document["styles"][0]["precision@5"]["value"] == pytest.approx(0.7)
    assert document["ablations"][0]["table"] == "source" and document["objectives"] == []
    assert [row["name"] for row in document["training"]["text"]] == ["0", "1"]
    json.dumps(document, allow_nan=False)


def test_the_page_needs_nothing_from_elsewhere_and_escapes(document, folder):
    told = document | {
        "versions": {"ray": "1"},
        "created_at": "2026-01-01",
        "seconds": {"total": 60.0},
        "went_on": True,
    }
    html = suite_report.page(told, folder, CONFIG)
    assert all(source.startswith("data:image/jpeg") for source in re.findall(r'<img src="([^"]*)"', html))
    assert "<script" not in html and "<b>a boat</b>" not in html and "&lt;b&gt;a boat" in html
    assert html.count("<svg") >= 3 and "missed" in html and html.count("<article>") >= 2
    assert suite_report.page(told, folder, CONFIG) == html  # the same figures give the same page


def test_one_line_of_each_ablation_is_the_profiles_own_whatever_the_profile():
    profile = load_profile("mini")
    label = profile.label.model_copy(update={"source": "lmm_pair"})
    other = profile.model_copy(
        update={"label": label, "align": profile.align.model_copy(update={"objective": "simpo"})}
    )
    for given, own in (
        (profile, {"lmm_score", "u 5, v 5, stride 4", "dpo"}),
        (other, {"lmm_pair", "u 5, v 5, stride 4", "simpo"}),
    ):
        variants = (*suite.VARIANTS, *suite.LOSSES)
        assert {variant.name for variant in variants if variant.changes(given) == ({}, {})} == own
    assert {v.table for v in (*suite.VARIANTS, *suite.LOSSES)} == {"source", "grid", "objective"}


def test_a_line_of_the_grid_changes_only_what_the_profile_has_otherwise():
    changed = [variant.changes(load_profile("mini")) for variant in suite.VARIANTS if variant.table == "grid"]
    assert changed == [({}, {}), ({"stride": 1}, {}), ({"rows": 1, "columns": 25}, {})]
