"""The suite's report over made-up studios whose figures are known in advance."""

import dataclasses
import json
import re
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import yaml
from made_evaluation import AFTER, BEFORE, IDS, LATENTS, QUERIES, KnownTruth, evaluation, image_row
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
from lab.suite import job, over_seeds, page, people, styles, tables, targets, variants
from lab.suite import summary as suite_summary
from lab.suite.config import SuiteConfig

SEEDS = (3, 4)
CONFIG = SuiteConfig(seed=3, num_resamples=200, num_sheets=2)
EVALUATION = EvaluateConfig(seed=3, num_resamples=200, num_sheets=2, protocols=PROTOCOLS)
SAMPLING = {"num_resamples": 400, "seed": 0}
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
        found = evaluation(KnownTruth(), with_text=True, with_nulls=True)
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
            "text": {"epochs": EPOCHS, "wise_ft_alpha": 0.75},
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
    by_style = {"original": constant(precision_at_5=0.7, aesthetic_at_5=0.4, aesthetics_of_accurate=0.6)}
    tables.write_values(by_style, first / "styles.parquet", {})
    (first / "styles.json").write_text(
        json.dumps({"original": {"num_failed": 0, "example": "<b>a boat</b>", "shown": {"q": [IDS[0]]}}})
    )
    tables.write_values({"lmm_pair": constant(aesthetic_at_5=0.5)}, first / "ablations.parquet", {})
    (first / "ablations.json").write_text(
        json.dumps({"lmm_pair": {"table": "source", "num_preferences": 9, "own": True}})
    )
    return made


@pytest.fixture(scope="module")
def document(folder):
    found = suite_summary.document(folder, SEEDS, CONFIG, ["styles", "epochs", "ablations"])
    return found | {"targets": targets.compare(targets.load_targets(None), found)}


def test_figures_are_means_over_seeds_with_the_value_of_each(document):
    found = document["systems"]["baseline"]["aesthetic@5"]
    assert found["value"] == pytest.approx((0.2 + 0.7 + (2 + 4) / 20 / 5) / 3, abs=1e-6)
    assert found["seeds"] == [found["value"]] * 2 and found["num_queries"] == 6
    assert document["differences"]["aligned_minus_baseline"]["recall@10"]["value"] == 0.5
    assert document["systems"]["baseline"]["zero_shot"]["value"] == 0.5
    assert document["seeds"] == [3, 4] and document["wise_ft_alpha"] == {
        "both": [0.5] * 2,
        "text": [0.75] * 2,
    }


def test_systems_are_compared_with_the_better_null(document):
    assert list(document["systems"]) == ["baseline", "suffix", "axis", "teacher", "aligned", "text"]
    assert document["best_null"] == "axis"  # which gains on the first query
    beauty = {name: of["aesthetic@5"]["value"] for name, of in document["systems"].items()}
    change = document["differences"]["aligned_minus_best_null"]["aesthetic@5"]
    assert change["value"] == pytest.approx(beauty["aligned"] - beauty["axis"], abs=1e-5)
    over_baseline = document["differences"]["text_minus_baseline"]["aesthetic@5"]
    assert over_baseline["value"] == pytest.approx(beauty["text"] - beauty["baseline"], abs=1e-5)


def test_queries_are_resampled_independently_in_every_studio():
    values, weights = np.random.default_rng(0).random(200), np.ones(200)
    one = metrics.estimate(values, weights, num_resamples=2000, seed=1)
    four = over_seeds.over_seeds([(values, weights)] * 4, num_resamples=2000, seed=1)
    assert four.value == pytest.approx(one.value)
    assert (four.high - four.low) / (one.high - one.low) == pytest.approx(0.5, rel=0.1)
    alone = over_seeds.over_seeds([(values, weights)], num_resamples=2000, seed=1)
    assert (alone.low, alone.high) == pytest.approx((one.low, one.high), abs=0.005)


def test_studios_are_resampled():
    """Studios without spread inside: two give 0, 0.5 or 1, and the interval is that of their spread."""
    zeros, ones, weights = np.zeros(50), np.ones(50), np.ones(50)
    two = over_seeds.over_seeds([(zeros, weights), (ones, weights)], num_resamples=500, seed=1)
    assert (two.value, two.low, two.high) == (0.5, 0.0, 1.0)
    groups = [(zeros + value, weights) for value in (0.1, 0.2, 0.3, 0.4, 0.5)]
    five = over_seeds.over_seeds(groups, num_resamples=4000, seed=1)
    half_width = 1.96 * np.std([0.1, 0.2, 0.3, 0.4, 0.5]) / np.sqrt(5)
    assert (five.low, five.high) == pytest.approx((0.3 - half_width, 0.3 + half_width), abs=0.015)


def test_difference_of_a_constant_shift_is_paired_over_queries_and_studios():
    rng = np.random.default_rng(2)
    before = [{"m": QueryValues.unweighted(rng.normal(studio, 1, 30))} for studio in range(3)]
    after = [{"m": QueryValues.unweighted(of["m"].values + 0.1)} for of in before]
    found = suite_summary.difference(after, before, "m", SAMPLING)
    assert [found["value"], *found["ci95"]] == pytest.approx([0.1] * 3) and found["seeds"] == [0.1] * 3
    fewer = [{"m": QueryValues.unweighted(of["m"].values[:5])} for of in before]
    assert suite_summary.difference(fewer, before, "m", SAMPLING)["value"] is None  # the teacher's recall


def test_subject_of_weight_zero_is_not_drawn():
    groups = [(np.array([1.0, 0.0]), np.array([0.0, 2.0]))]
    assert suite_summary.figure(groups, SAMPLING)["ci95"] == [0.0, 0.0]
    assert suite_summary.figure([(np.array([1.0]), np.array([0.0]))], SAMPLING)["value"] is None


@pytest.mark.parametrize(("teacher", "share"), [(0.6, 0.5), (0.2, None), (0.1, None)])
def test_share_of_the_gain_needs_a_gain(teacher, share):
    of = {
        name: [constant(aesthetic_at_5=value)] * 2
        for name, value in (("baseline", 0.2), ("teacher", teacher), ("aligned", 0.4))
    }
    found = suite_summary.share_of_gain(of, "aligned", SAMPLING)
    assert found["value"] == share and found["ci95"] == (share and [share, share])


def test_resample_in_which_the_teacher_gains_nothing_counts_nothing_kept():
    """The teacher gains in one of two studios: a quarter of the resamples lacks that studio."""
    of = {
        name: [constant(aesthetic_at_5=value) for value in values]
        for name, values in (("baseline", (0.0, 0.0)), ("teacher", (0.0, 0.4)), ("aligned", (0.1, 0.3)))
    }
    found = suite_summary.share_of_gain(of, "aligned", SAMPLING)
    assert found["value"] == pytest.approx(1.0) and found["ci95"][0] == 0.0


def test_table_of_another_origin_is_not_reused(tmp_path):
    path = tmp_path / "sweep_both.parquet"
    assert not tables.has_origin(path, {"encoder": "a"})
    tables.write_values({"0.0": constant(recall_at_1=0.5)}, path, {"encoder": "a"})
    assert tables.has_origin(path, {"encoder": "a"}) and not tables.has_origin(path, {"encoder": "b"})


def test_win_rates_and_judge_table_pool_the_seeds(document):
    rate = document["win_rate"]["aligned_vs_baseline"]
    assert (rate["judge"]["wins"], rate["judge"]["ties"], rate["judge"]["losses"]) == (4, 2, 0)
    assert (rate["people"]["wins"], rate["people"]["ties"], rate["people"]["losses"]) == (2, 2, 2)
    rate = document["win_rate"]["aligned_vs_suffix"]["people"]  # `suffix` has the baseline's results
    assert (rate["wins"], rate["ties"], rate["losses"]) == (2, 2, 2) and len(rate["ci95"]) == 2
    rows = document["judge_table"]
    assert len(rows) == 6 and rows[0]["win_rate"]["num_queries"] == 4  # 2 differ, in each of 2 seeds
    # People value accuracy: the protocol that rates it agrees with them, this judge's comparison does not.
    by_name = {(row["protocol"], row["order_consistency"]): row["agreement"]["value"] for row in rows}
    assert by_name["ranker", True] == 0.5 and by_name["scorer", True] == 1.0
    # On the groups that people voted on, the scorer's ratings side with them in both criteria.
    by_votes = {row["protocol"]: row["people"] for row in rows if row["order_consistency"]}
    assert [by_votes["scorer"][name]["value"] for name in ("accuracy", "aesthetic")] == [1.0, 1.0]


def test_confidence_of_votes_is_the_mean_of_the_studios(document):
    # One row in each studio: 3 votes to none on accuracy, 4 to 1 on aesthetics.
    shares = {criterion: found["shares"] for criterion, found in document["vote_confidence"].items()}
    assert shares == {"accuracy": [0, 0, 0, 0, 1], "aesthetic": [0, 0, 0, 1, 0]}
    documents = [
        {"hpir": {"votes": {"confidence": {"accuracy": {"edges": [0, 0.5, 1], "shares": own}}}}}
        for own in ([1.0, 0.0], [0.5, 0.5])
    ]
    found = suite_summary.vote_confidence(documents)
    assert found == {"accuracy": {"edges": [0, 0.5, 1], "shares": [0.75, 0.25]}}


def test_win_rate_by_people_of_one_evaluation(folder):
    found = read_tables(folder / f"seed{SEEDS[0]}" / "evaluate")
    rates = people.win_rates(found, LATENTS, num_resamples=200, seed=SEEDS[0])["aligned_vs_baseline"]
    # Query 0 gained accurate beauty, query 1 lost its boats, query 2 has the same results.
    assert people.outcomes_in(found, "aligned", LATENTS, seed=SEEDS[0]).tolist() == [1, -1, 0]
    assert [rates["people"][name] for name in ("wins", "ties", "losses")] == [1, 1, 1]
    assert [rates["judge"][name] for name in ("wins", "ties", "losses")] == [2, 1, 0]
    assert rates["judge_agrees_with_people"] == 0.5  # it prefers the aligned encoder for both


def test_targets_are_met_or_missed(document):
    met = {row["quantity"]: row["met"] for row in document["targets"]}
    assert met["text-to-image recall@10, aligned - baseline"]
    assert not met["precision@5, aligned - baseline"]


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
    assert drawn["systems"] == report["systems"]
    redraw.run(RedrawConfig(folder=str(folder), num_sheets=0, num_losses=0))
    assert "<article>" not in (folder / "report.html").read_text()


def test_redraw_of_a_folder_without_an_evaluation_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no evaluation in .*report.json missing"):
        redraw.run(RedrawConfig(folder=str(tmp_path)))


def test_targets_are_read_from_a_file(document, tmp_path):
    path = tmp_path / "targets.yaml"
    wanted = [{"quantity": "beauty", "figure": "systems.aligned.aesthetic@5", "at_least": 0.2}]
    wanted[0]["bound"] = "value"
    path.write_text(yaml.safe_dump({"targets": wanted}))
    (row,) = targets.compare(targets.load_targets(str(path)), document)
    assert row["quantity"] == "beauty" and row["met"]
    assert row["value"] == document["systems"]["aligned"]["aesthetic@5"]["value"]


def test_missing_judge_is_refused_before_a_studio_is_drawn(tmp_path):
    out = tmp_path / "suite"
    with pytest.raises(UserError, match="'nowhere' does not exist"):
        job.run(SuiteConfig(judge="nowhere", out=str(out)))
    assert not list(out.glob("seed*"))


def test_malformed_targets_are_refused_before_anything_is_measured(tmp_path):
    path = tmp_path / "targets.yaml"
    with pytest.raises(UserError, match=r"targets .*cannot be read"):
        targets.load_targets(str(path))
    path.write_text("targets: [{quantity: beauty, figure: systems.aligned.absent}]")
    with pytest.raises(UserError, match=r"malformed.*at_least"):
        targets.load_targets(str(path))
    path.write_text("targets: [{quantity: beauty, figure: systems.aligned.absent, at_least: 1}]")
    with pytest.raises(UserError, match=r"'systems.aligned.absent' is not a figure of report.json"):
        targets.load_targets(str(path))
    path.write_bytes(b"targets: \xff")
    with pytest.raises(UserError, match=r"targets .*cannot be read"):
        targets.load_targets(str(path))


@pytest.mark.parametrize(
    ("bound", "value", "ci95", "met"),
    [
        ("lower", 0.3, [0.06, 0.5], True),
        ("lower", 0.3, [0.05, 0.5], False),  # the bound has to be past the target
        ("lower", 0.3, None, False),
        ("lower", None, None, False),
        ("value", 0.05, [-1.0, 1.0], True),
        ("value", 0.04, [0.05, 0.06], False),
        ("value", None, None, False),
    ],
)
def test_target_is_met_by_the_lower_bound_unless_it_is_about_the_value(bound, value, ci95, met):
    path = "differences.aligned_minus_best_null.aesthetic@5"
    target = targets.Target(quantity="beauty", figure=path, at_least=0.05, bound=bound)
    report = {"differences": {"aligned_minus_best_null": {"aesthetic@5": {"value": value, "ci95": ci95}}}}
    (row,) = targets.compare([target], report)
    assert row["met"] is met and row["value"] == value


def test_target_that_was_not_measured_is_listed_and_missed():
    target = targets.Target(quantity="b", figure="win_rate.aligned_vs_suffix.people", at_least=0.5)
    (row,) = targets.compare([target], {"win_rate": {}})
    assert row == {
        "quantity": "b",
        "target": 0.5,
        "bound": "lower",
        "value": None,
        "ci95": None,
        "met": False,
    }


def test_targets_ask_the_same_retrieval_of_both_modes():
    asked = {mode: {} for mode in ("aligned", "text")}
    for target in targets.load_targets(None):
        for mode, of in asked.items():
            name = target.figure.removeprefix(f"differences.{mode}_minus_baseline.")
            if name != target.figure and not name.startswith("hpir"):
                of[name] = target.at_least
    assert asked["aligned"] == asked["text"] and len(asked["text"]) == 8
    assert {name: least for name, least in asked["text"].items() if least != -0.015} == {"precision@5": -0.03}


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


def test_style_is_searched_voted_on_and_compared_with_the_original(monkeypatch):
    """The style's words find what the aligned encoder finds, and turn the votes on the query "q" round."""

    class Index:
        def __init__(self, *_, where):
            pass

        def search(self, texts, k):
            return AFTER if texts[0].endswith("lovely") else BEFORE

        def similarities(self, pairs):
            return {(t, i): float((i == IDS[0]) is not t.endswith("lovely")) for t, i in pairs}

    made = evaluation(KnownTruth()).inputs
    rephrased = {"original": ({q: q for q in [*QUERIES, "q"]}, 0)}
    rephrased["k_list"] = ({q: f"{q}, lovely" for q in [*QUERIES, "q"]}, 1)
    settings = (SimpleNamespace(rephraser=None, encoder=None), SimpleNamespace(encoder=lambda alias: alias))
    for owner, name, value in (
        (styles.command, "settings", lambda config: settings),
        (styles, "read_inputs", lambda *_: made),
        (styles, "EncoderSystem", Index),
        (styles, "_rephrase", lambda profile, queries: rephrased),
    ):
        monkeypatch.setattr(owner, name, value)
    found = styles.measure(EVALUATION, LATENTS)
    values = {
        style: {name: list(own.values) for name, own in of["values"].items()} for style, of in found.items()
    }
    # Query 0 gained accurate beauty, query 1 lost its boats, query 2 has the same results.
    assert values["k_list"]["win_rate_over_original"] == [1.0, 0.0, 0.5]
    assert values["original"]["win_rate_over_original"] == [0.5] * 3
    assert (values["original"]["hpir_accuracy"], values["k_list"]["hpir_accuracy"]) == ([1.0], [0.0])
    assert (values["original"]["hpir_aesthetic"], values["k_list"]["hpir_aesthetic"]) == ([0.0], [1.0])
    assert set(values["k_list"]) == set(styles.STYLE_METRICS)
    assert found["k_list"]["example"] == "a boat, lovely" and found["k_list"]["shown"]["a boat"] == AFTER[0]


def test_quick_limits_the_sizes_and_compares_no_losses():
    quick = SuiteConfig(quick=True, num_train_queries=8).limited()
    assert (quick.num_seeds, quick.num_train_queries, quick.num_queries) == (1, 8, 60)
    plain = SuiteConfig()
    assert plain.limited() == plain and plain.num_seeds == 5 and plain.num_queries >= 100
    assert job.num_steps(quick, load_profile("mini")) == 9
    with pytest.raises(ValueError, match="quick has no comparisons"):
        SuiteConfig(quick=True, kind="objectives")


def test_report_of_a_quick_suite_has_no_ablations(folder):
    found = suite_summary.document(folder, SEEDS[:1], CONFIG, [])
    assert found["styles"] == found["ablations"] == found["objectives"] == [] and found["training"] == {}
    assert found["intervals_over"] == "queries"
    made_with = {"versions": {}, "created_at": "2026-01-01", "seconds": {"total": 60.0}, "resumed": False}
    html = page.page(found | made_with | {"targets": []}, folder, CONFIG, CONFIG)
    assert "Ablations" not in html and "Rephrasing styles" not in html


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
    for other in ("answers", "rows", "series", "votes"):
        (tmp_path / f"{other}.parquet").touch()
    readers = {
        "report.json": evaluation_files.read_document,
        "resolved_config.yaml": lambda folder: evaluation_files.read_config(folder, RedrawConfig),
        "answers.parquet": evaluation_files.read_tables,
    }
    with pytest.raises(UserError, match="evaluate again"):
        readers[name](tmp_path)
