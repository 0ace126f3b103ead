"""The suite's report over made-up studios whose figures are known in advance."""

import dataclasses
import json
import re

import numpy as np
import pyarrow as pa
import pytest
import yaml
from made_evaluation import LATENTS, KnownTruth, evaluation, image_row
from pyarrow import parquet

from cluster import command
from cluster.errors import UserError
from cluster.profile import load_profile
from cluster.tables import SCHEMAS, Store
from jobs.evaluate import output_files, summary
from jobs.evaluate.config import PROTOCOLS, EvaluateConfig
from jobs.evaluate.figures import metrics
from jobs.evaluate.figures.per_query import QueryValues
from lab import evaluation_files
from lab.evaluation_files import read_tables
from lab.redraw import job as redraw
from lab.redraw.config import RedrawConfig
from lab.suite import over_seeds, page, people, tables, targets, variants
from lab.suite import summary as suite_summary
from lab.suite.config import SuiteConfig

SEEDS = (3, 4)
CONFIG = SuiteConfig(seed=3, num_resamples=200, num_sheets=2)
EVALUATION = EvaluateConfig(seed=3, num_resamples=200, num_sheets=2, protocols=PROTOCOLS)
EPOCHS = [
    {"loss_preference": 0.7, "loss_pt": 2.0, "rewards/accuracies": 0.5, "recall@10": 0.9},
    {"loss_preference": 0.6, "loss_pt": 2.1, "rewards/accuracies": 0.7, "recall@10": 0.8},
]


def constant(**values):
    """metric -> the same value for each of three queries; `aesthetic_at_5` is written as aesthetic@5."""
    names = {name.replace("_at_", "@"): value for name, value in values.items()}
    return {name: QueryValues.unweighted(np.full(3, value)) for name, value in names.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two equal studios as `measure_studio` leaves them."""
    made = tmp_path_factory.mktemp("suite")
    for seed in SEEDS:
        world = made / f"seed{seed}"
        (world / "evaluate").mkdir(parents=True)
        store = Store(str(world / "store"))
        rows = pa.Table.from_pylist([image_row(number) for number in range(20)], SCHEMAS["images"])
        store.merge("images", rows, on=["image_id"])
        found = evaluation(KnownTruth(), with_text=True)
        document = summary.document(found, EVALUATION)
        output_files.write(output_files.tables_of(found, EVALUATION), document, world / "evaluate")
        (world / "studio").mkdir()
        latents = [
            {"image_id": image_id, "split": "gallery", **dataclasses.asdict(scene)}
            for image_id, scene in LATENTS.items()
        ]
        parquet.write_table(pa.Table.from_pylist(latents), world / "studio" / "latents.parquet")
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
            tables.write_values(curve, world / f"sweep_{mode}.parquet", {})
            epochs = {str(int(float(a))): found for a, found in curve.items()}
            tables.write_values(epochs, world / f"epochs_{mode}.parquet", {})
    first = made / f"seed{SEEDS[0]}"
    styles = {"original": constant(precision_at_5=0.7, aesthetic_at_5=0.4, aesthetics_of_accurate=0.6)}
    tables.write_values(styles, first / "styles.parquet", {})
    (first / "styles.json").write_text(
        json.dumps({"original": {"num_failed": 0, "example": "<b>a boat</b>"}})
    )
    tables.write_values({"lmm_pair": constant(aesthetic_at_5=0.5)}, first / "ablations.parquet", {})
    (first / "ablations.json").write_text(
        json.dumps({"lmm_pair": {"table": "source", "num_preferences": 9, "own": True}})
    )
    return made


@pytest.fixture(scope="module")
def document(folder):
    found = suite_summary.document(folder, SEEDS, CONFIG, ["ablations"])
    return found | {"targets": targets.compare(targets.load_targets(None), found)}


def test_figures_are_means_over_seeds_with_the_value_of_each(document):
    found = document["metrics"]["baseline"]["aesthetic@5"]
    assert found["value"] == pytest.approx((0.2 + 0.7 + (2 + 4) / 20 / 5) / 3, abs=1e-6)
    assert found["seeds"] == [found["value"]] * 2 and found["num_queries"] == 6
    assert document["difference"]["aligned"]["recall@10"]["value"] == 0.5
    assert document["metrics"]["baseline"]["zero_shot"]["value"] == 0.5


def test_seeds_are_resampled_independently_so_their_mean_has_a_narrower_interval():
    values, weights = np.random.default_rng(0).random(200), np.ones(200)
    one = metrics.estimate(values, weights, num_resamples=2000, seed=1)
    four = over_seeds.over_seeds([(values, weights)] * 4, num_resamples=2000, seed=1)
    assert four.value == pytest.approx(one.value)
    assert (four.high - four.low) / (one.high - one.low) == pytest.approx(0.5, rel=0.1)


def test_table_of_another_origin_is_not_reused(tmp_path):
    path = tmp_path / "sweep_both.parquet"
    assert not tables.has_origin(path, {"encoder": "a"})
    tables.write_values({"0.0": constant(recall_at_1=0.5)}, path, {"encoder": "a"})
    assert tables.has_origin(path, {"encoder": "a"}) and not tables.has_origin(path, {"encoder": "b"})


def test_share_of_gain_is_one_if_the_teacher_equals_the_aligned_encoder(document):
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
    # People value accuracy: the protocol that rates it agrees with them, this judge's comparison does not.
    by_name = {(row["protocol"], row["order_consistency"]): row["agreement"]["value"] for row in rows}
    assert by_name["ranker", True] == 0.5 and by_name["scorer", True] == 1.0


def test_win_rate_by_people_of_one_evaluation(folder):
    found = read_tables(folder / f"seed{SEEDS[0]}" / "evaluate")
    by_people = people.win_rate(found, LATENTS, num_resamples=200, seed=SEEDS[0])
    # Query 0 gained accurate beauty, query 1 lost its boats, query 2 has the same results.
    assert people.outcomes_in(found, "aligned", LATENTS, seed=SEEDS[0]).tolist() == [1, -1, 0]
    assert [by_people["people"][name] for name in ("wins", "ties", "losses")] == [1, 1, 1]
    assert by_people["judge_agrees_with_people"] == 0.5  # it prefers the aligned encoder for both


def test_targets_are_met_or_missed(document):
    met = {row["quantity"]: row["met"] for row in document["targets"]}
    assert met["share of that gain, mode both"] and not met["win rate of aligned over baseline, people"]


def test_tables_that_were_not_measured_are_empty(document):
    assert [row["name"] for row in document["sweep"]["both"]] == ["0.0", "1.0"]
    assert document["styles"][0]["precision@5"]["value"] == pytest.approx(0.7)
    assert document["ablations"][0]["table"] == "source" and document["objectives"] == []
    assert [row["name"] for row in document["training"]["text"]] == ["0", "1"]
    json.dumps(document, allow_nan=False)


@pytest.fixture
def report(document):
    made_with = {"versions": {"ray": "1"}, "created_at": "2026-01-01", "seconds": {"total": 60.0}}
    return document | made_with | {"resumed": True}


def test_page_is_self_contained_escapes_data_and_is_reproducible(report, folder):
    html = page.page(report, folder, CONFIG, CONFIG)
    assert all(source.startswith("data:image/jpeg") for source in re.findall(r'<img src="([^"]*)"', html))
    assert "<script" not in html and "<b>a boat</b>" not in html and "&lt;b&gt;a boat" in html
    assert html.count("<svg") >= 3 and "missed" in html and html.count("<article>") >= 2
    assert page.page(report, folder, CONFIG, CONFIG) == html


def test_redraw_draws_the_page_of_a_suite_from_its_folder(report, folder):
    command.save_config(CONFIG, folder)
    output_files.write_document(report, folder)
    drawn = redraw.run(RedrawConfig(folder=str(folder), num_sheets=2))
    assert (folder / "report.html").read_text() == page.page(report, folder, CONFIG, CONFIG)
    assert drawn["metrics"] == report["metrics"]
    redraw.run(RedrawConfig(folder=str(folder), num_sheets=0, num_losses=0))
    assert "<article>" not in (folder / "report.html").read_text()


def test_redraw_of_a_folder_without_an_evaluation_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no evaluation in .*report.json missing"):
        redraw.run(RedrawConfig(folder=str(tmp_path)))


def test_targets_are_read_from_a_file(document, tmp_path):
    path = tmp_path / "targets.yaml"
    wanted = [{"quantity": "beauty", "figure": "metrics.aligned.aesthetic@5", "at_least": 0.2}]
    path.write_text(yaml.safe_dump({"targets": wanted}))
    (row,) = targets.compare(targets.load_targets(str(path)), document)
    assert row["quantity"] == "beauty" and row["met"]
    assert row["value"] == document["metrics"]["aligned"]["aesthetic@5"]["value"]


def test_malformed_targets_are_refused_before_anything_is_measured(tmp_path):
    path = tmp_path / "targets.yaml"
    with pytest.raises(UserError, match=r"targets .*cannot be read"):
        targets.load_targets(str(path))
    path.write_text("targets: [{quantity: beauty, figure: metrics.aligned.absent}]")
    with pytest.raises(UserError, match=r"malformed.*at_least"):
        targets.load_targets(str(path))
    path.write_text("targets: [{quantity: beauty, figure: metrics.aligned.absent, at_least: 1}]")
    with pytest.raises(UserError, match=r"'metrics.aligned.absent' is not a figure of report.json"):
        targets.load_targets(str(path))
    path.write_bytes(b"targets: \xff")
    with pytest.raises(UserError, match=r"targets .*cannot be read"):
        targets.load_targets(str(path))


def test_targets_may_name_every_figure_of_the_report(document):
    for path in targets.FIGURES:
        targets.compare([targets.Target(quantity="", figure=path, at_least=0)], document)


def test_suite_config_has_no_option_that_a_suite_decides():
    decided = {
        "baseline",
        "aligned",
        "text",
        "queries",
        "truth",
        "labels",
        "hpir",
        "pairs",
        "where",
        "teacher",
    }
    assert not decided & SuiteConfig.model_fields.keys()
    with pytest.raises(ValueError, match="queries"):
        SuiteConfig(queries="own.txt")


def test_exactly_one_variant_of_each_table_has_the_profiles_settings():
    profile = load_profile("mini")
    label = profile.label.model_copy(update={"source": "lmm_pair"})
    other = profile.model_copy(
        update={"label": label, "align": profile.align.model_copy(update={"objective": "simpo"})}
    )
    every = (*variants.ABLATION_VARIANTS, *variants.OBJECTIVE_VARIANTS)
    for given, own in (
        (profile, {"lmm_score", "u 5, v 5, stride 4", "dpo"}),
        (other, {"lmm_pair", "u 5, v 5, stride 4", "simpo"}),
    ):
        assert {variant.name for variant in every if variant.changes(given) == ({}, {})} == own
    assert {variant.table for variant in every} == {"source", "grid", "objective"}


def test_variant_changes_only_settings_that_differ_from_the_profile():
    grid = [variant for variant in variants.ABLATION_VARIANTS if variant.table == "grid"]
    changed = [variant.changes(load_profile("mini")) for variant in grid]
    assert changed == [({}, {}), ({"stride": 1}, {}), ({"rows": 1, "columns": 25}, {})]


@pytest.mark.parametrize("name", ["report.json", "resolved_config.yaml", "answers.parquet"])
def test_redraw_names_a_file_that_is_damaged(name, tmp_path):
    (tmp_path / name).write_bytes(b"\xff{")
    for other in ("answers", "rows", "series"):
        (tmp_path / f"{other}.parquet").touch()
    readers = {
        "report.json": evaluation_files.read_document,
        "resolved_config.yaml": lambda folder: evaluation_files.read_config(folder, RedrawConfig),
        "answers.parquet": evaluation_files.read_tables,
    }
    with pytest.raises(UserError, match="evaluate again"):
        readers[name](tmp_path)
