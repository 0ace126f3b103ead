"""report.json and report.html of a made-up evaluation whose figures are known in advance."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest
from made_evaluation import IDS, KnownTruth, evaluation, ids, image_row, jpeg

from cluster.errors import UserError
from cluster.tables import SCHEMAS, EncoderRecord, Store, embeddings_schema, embeddings_table
from jobs.evaluate import inputs, language_models, output_files, summary
from jobs.evaluate.config import PROTOCOLS, TOP_K, EvaluateConfig
from jobs.evaluate.figures import per_query, protocols, winrate
from jobs.evaluate.figures.registry import METRICS
from jobs.evaluate.gallery import common_gallery, comparable_images
from jobs.evaluate.job import run
from jobs.evaluate.page import render
from jobs.evaluate.systems import EncoderSystem
from lab.evaluation_files import read_document, read_tables, values_in

CONFIG = EvaluateConfig(num_resamples=200, num_sheets=2, num_losses=2)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = Store(str(tmp_path_factory.mktemp("store")))
    rows = [image_row(number) for number in range(20)]
    made.merge("images", pa.Table.from_pylist(rows, SCHEMAS["images"]), on=["image_id"])
    return made


def page(store, truth, config=CONFIG, **kinds):
    made = evaluation(truth, **kinds)
    document = summary.document(made, config) | {"versions": {"ray": "1.2.3"}, "created_at": "today"}
    shown = render.sheets(output_files.tables_of(made, config), store, config, config.seed)
    return render.render(document, *shown, config)


def values_of_figures(figures):
    return {name: figure["value"] for name, figure in figures.items()}


def test_figures_equal_those_worked_out_by_hand():
    found = summary.document(evaluation(KnownTruth()), CONFIG)
    figures = {system: values_of_figures(own) for system, own in found["systems"].items()}
    before = figures["baseline"]
    assert list(figures) == ["baseline", "teacher", "aligned"]
    assert (before["recall@1"], before["recall@10"]) == (0.5, 0.5)
    assert figures["aligned"]["recall@10"] == 1.0
    assert before["precision@5"] == pytest.approx((1 + 1 + 0.4) / 3, abs=1e-6)
    assert before["aesthetic@5"] == pytest.approx((0.2 + 0.7 + (2 + 4) / 20 / 5) / 3, abs=1e-6)
    assert (before["hpir_accuracy"], before["hpir_aesthetic"]) == (1.0, 0.0)
    assert found["captions"]["num_sharing"] == 2
    assert found["hpir"]["folder/votes.parquet"]["num_left_out"] == 1
    assert found["share_of_teacher_gain"]["aligned"]["hpir_aesthetic"] is None  # the teacher gained nothing


def test_win_rate_counts_only_queries_on_which_both_orders_agree():
    rate = summary.document(evaluation(KnownTruth()), CONFIG)["win_rate"]["aligned_vs_baseline"]
    # Query 0: five wins; query 1: four wins and one equal image; query 2: the same results.
    assert (rate["wins"], rate["ties"], rate["losses"]) == (2, 1, 0)
    assert rate["value"] == pytest.approx(2.5 / 3, abs=1e-6)
    assert (rate["order_consistency"], rate["num_identical_rows"]) == (1.0, 1)


def test_written_tables_give_the_same_figures(store, tmp_path):
    made = evaluation(KnownTruth())
    document = summary.document(made, CONFIG)
    output_files.write(output_files.tables_of(made, CONFIG), document, tmp_path)
    found = read_tables(tmp_path)
    assert read_document(tmp_path) == json.loads(json.dumps(document))
    assert found.answers.num_rows == 3 * 3 * TOP_K
    again = per_query.estimates(values_in(found.series, "aligned"), ["aesthetic@5", "hpir_aesthetic"],
                              num_resamples=CONFIG.num_resamples, seed=CONFIG.seed)  # fmt: skip
    for metric, estimated in again.items():
        assert estimated == document["systems"]["aligned"][metric]
    assert winrate.outcomes(found.margins("ranker")).tolist() == [1, 1, 0]
    assert values_in(found.series, "absent") == {}
    with pytest.raises(UserError, match=r"no evaluation in .*absent.*answers.parquet"):
        read_tables(tmp_path / "absent")


def test_protocols_worked_out_by_hand():
    """One query, two ranks: A is beautiful but inaccurate at the first, fair and accurate at the second."""
    pairs, nan = [(0, 0, "a", "b"), (0, 1, "c", "d")], np.nan
    together = {
        ("accuracy", "q", "a", "b"): np.array([[1.0, 5.0], [1.0, 5.0]]),
        ("aesthetics", "q", "a", "b"): np.array([[5.0, 3.0], [5.0, 3.0]]),
        ("accuracy", "q", "c", "d"): np.array([[5.0, 5.0], [5.0, 5.0]]),
        ("aesthetics", "q", "c", "d"): np.array([[5.0, 1.0], [1.0, 1.0]]),
    }
    judgements = language_models.Judgements(
        aesthetics={("q", "a"): 5.0, ("q", "b"): 3.0, ("q", "c"): 4.0, ("q", "d"): 2.0},
        accuracy={("q", "a"): 1.0, ("q", "b"): 5.0, ("q", "c"): 5.0, ("q", "d"): 3.0},
        compared={("overall", "q", "a", "b"): (0.9, 0.2), ("overall", "q", "c", "d"): (nan, 0.9)},
        together=together,
    )
    found = {name: protocols.margins(name, ["q"], pairs, judgements, 3.0) for name in PROTOCOLS}
    assert found["ranker"][0] == pytest.approx(np.array([0.4, -0.3]) / TOP_K)
    assert found["scorer"][0] == pytest.approx(np.array([-0.5 + 0.5, -0.5 + 0.5]) / TOP_K)
    assert found["cp_scorer"][0] == pytest.approx(np.array([-0.5 + 1.0, -0.5 + 0.0]) / TOP_K)
    rows = protocols.table(["a dog"], found, num_resamples=100, seed=0)
    assert [(row["protocol"], row["order_consistency"]) for row in rows][:2] == [
        ("ranker", True),
        ("ranker", False),
    ]
    assert rows[0]["win_rate"]["value"] == 0.5 and rows[0]["decided"]["value"] == 0.0  # a tie


def test_judge_ratings_replace_a_missing_truth_and_are_compared_with_a_known_one():
    with_truth = summary.document(evaluation(KnownTruth()), CONFIG)
    without = summary.document(evaluation(None), CONFIG)
    assert with_truth["judged"]["accuracy_gate_right"] == 1.0
    assert with_truth["judged"]["judge_accuracy_right"] == 1.0
    assert with_truth["judged"]["aesthetics_spearman"] == pytest.approx(1.0)
    assert without["systems"]["aligned"]["aesthetic@5"]["value"] is None
    # This judge's ratings are the truth scaled to 1..5, so the figures agree.
    judged = without["judged"]["aligned"]["aesthetic@5"]["value"]
    assert judged == pytest.approx(with_truth["systems"]["aligned"]["aesthetic@5"]["value"], abs=1e-6)


def test_report_is_strict_json():
    json.dumps(summary.document(evaluation(None), CONFIG), allow_nan=False)


@pytest.mark.parametrize("truth", [KnownTruth(), None])
def test_page_is_self_contained(store, truth):
    html = page(store, truth)
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert len(sources) >= 3 * TOP_K
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "<script" not in html
    assert "@import" not in html
    assert "url(" not in html


def test_page_escapes_data(store):
    html = page(store, KnownTruth())
    assert "<b>&" not in html
    assert "<i>picture" not in html
    assert "&lt;b&gt;&amp;" in html
    assert "&lt;i&gt;picture&lt;/i&gt; 10" in html


def test_losses_are_sorted_and_gains_excluded():
    assert render.lost_most(np.array([0.1, -0.2, 0.0, -0.5]), 3) == [3, 1]
    assert render.lost_most(np.zeros(4), 2) == []


def test_lost_query_is_shown_with_its_marks(store):
    html = page(store, KnownTruth())
    lost = html[html.index("Largest losses") :]
    assert lost.count("<article>") == 1
    assert "&lt;b&gt;" in lost[: lost.index("</h3>")]
    assert lost.count("✕") >= 4


def test_page_says_whether_marks_are_from_the_truth_or_the_judge(store):
    assert "whether the judge rates an image accurate" in page(store, None)
    config = CONFIG.model_copy(update={"truth": "truth.parquet"})
    assert "whether the judge rates an image accurate" not in page(store, KnownTruth(), config)


def test_page_describes_every_measured_metric_from_the_registry(store):
    html = page(store, KnownTruth())
    for metric in METRICS.values():
        assert metric.title in html and metric.unit in html


def test_page_shows_what_the_nulls_are_and_the_difference_from_the_best(store):
    html = page(store, KnownTruth(), with_nulls=True)
    assert "<q>, lovely</q>" in html and "aligned − best null" in html and "aligned against suffix" in html
    assert "nulls" not in page(store, KnownTruth())


def test_thumbnails_are_small_jpegs(store):
    uri = render.thumbnail(jpeg(3), 60)
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < 4000


def encoder_tables(store, fingerprint, numbers, vectors):
    rows = [
        {
            **{k: v for k, v in image_row(n).items() if k not in ("uri", "preview", "detailed_caption")},
            "vector": v,
        }
        for n, v in zip(numbers, vectors, strict=True)
    ]
    table = pa.Table.from_pylist(rows, embeddings_schema(len(vectors[0])))
    store.merge(embeddings_table(fingerprint), table, on=["image_id"])
    return EncoderRecord(encoder=fingerprint, checkpoint="none", dim=len(vectors[0]))


def test_different_galleries_are_refused_with_both_sizes(tmp_path):
    store = Store(str(tmp_path))
    first = encoder_tables(store, "1" * 16, [0, 1, 2], np.eye(3, dtype=np.float32))
    second = encoder_tables(store, "2" * 16, [0, 1], np.eye(3, dtype=np.float32)[:2])
    with pytest.raises(UserError, match=r"3 and 2 images.*kallos index --encoder 2222222222222222"):
        common_gallery(store, [first, second], None)
    store.merge("images", pa.Table.from_pylist([image_row(2)], SCHEMAS["images"]), on=["image_id"])
    assert comparable_images(store, [first, second], None) is None
    where = f"image_id < '{IDS[2]}'"
    assert common_gallery(store, [first, second], where) == set(ids(0, 1))
    with pytest.raises(UserError, match=r"filter 'nothing = 1' cannot be used .*nothing"):
        common_gallery(store, [first, second], "nothing = 1")
    with pytest.raises(UserError, match="has no images with --where"):
        common_gallery(store, [first, second], "caption = 'absent'")


def test_unreadable_and_deleted_images_that_one_encoder_lacks_are_left_out(tmp_path, capsys):
    store = Store(str(tmp_path))
    first = encoder_tables(store, "1" * 16, [0, 1, 2, 3], np.eye(4, dtype=np.float32))
    second = encoder_tables(store, "2" * 16, [0, 1], np.eye(4, dtype=np.float32)[:2])
    rows = pa.Table.from_pylist([image_row(number) for number in range(3)], SCHEMAS["images"])
    store.merge("images", rows, on=["image_id"])
    store.open("images").update(values={"preview": b"no image", "uri": "/none"})
    where = comparable_images(store, [first, second], None)
    assert common_gallery(store, [first, second], where) == set(ids(0, 1))
    where = comparable_images(store, [first, second], f"image_id != '{IDS[0]}'")
    assert common_gallery(store, [first, second], where) == set(ids(1))
    assert store.count("images", where) == 1
    assert "2 images are left out, such as" in capsys.readouterr().err


def test_caption_ranks_and_similarities_read_from_the_table(tmp_path):
    store = Store(str(tmp_path))
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0.6, 0.8, 0]], np.float32)
    encoder_tables(store, "1" * 16, [0, 1, 2], vectors)
    system = object.__new__(EncoderSystem)  # without a checkpoint: texts are looked up
    system.store, system.where, system.table = store, None, embeddings_table("1" * 16)
    system.encoder = LookedUp()
    captions = inputs.Captions(("x", "y"), {IDS[0]: 0, IDS[1]: 0, IDS[2]: 1}, "caption", 3, 2)
    assert system.caption_ranks(captions).tolist() == [1, 2]
    # "x" is nearer than "y" to image 0 alone; image 1 shares its caption with image 0.
    assert system.image_ranks(captions) == {IDS[0]: 1, IDS[1]: 2, IDS[2]: 1}
    outside = inputs.Captions(("x",), {IDS[0]: -1, IDS[1]: 0, IDS[2]: -1}, "caption", 3, 2)
    assert system.image_ranks(outside) == {IDS[1]: 1}
    found = system.similarities([("x", IDS[2]), ("y", IDS[1])])
    assert found == pytest.approx({("x", IDS[2]): 0.6, ("y", IDS[1]): 1.0})


class LookedUp:
    """Text "x" is the first axis, "y" the second."""

    def encode_texts(self, texts):
        return np.array([{"x": [1, 0, 0], "y": [0, 1, 0]}[text] for text in texts], np.float32)


def test_unknown_alias_and_missing_queries_are_refused(tmp_path):
    empty = EvaluateConfig(store=str(tmp_path / "store"), out=str(tmp_path / "out"))
    with pytest.raises(UserError, match="no encoder 'baseline'"):
        run(empty)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"absent\.txt' does not exist"):
        inputs.load_queries(EvaluateConfig(queries="absent.txt"), Store(str(tmp_path)))
    (tmp_path / "blank.txt").write_text("\n  \n")
    with pytest.raises(UserError, match=r"no queries in .*blank.txt"):
        inputs.load_queries(EvaluateConfig(queries=str(tmp_path / "blank.txt")), Store(str(tmp_path)))
    (tmp_path / "wrong.csv").write_text("text\nboat\n")
    with pytest.raises(UserError, match=r"lacks the column\(s\) query"):
        inputs.load_queries(EvaluateConfig(queries=str(tmp_path / "wrong.csv")), Store(str(tmp_path)))


def test_queries_are_drawn_by_seed_and_default_to_captions(store, tmp_path):
    path = tmp_path / "queries.txt"
    path.write_text("\n".join(f"q{i}" for i in range(30)) + "\nq0\n")
    drawn = [
        inputs.load_queries(EvaluateConfig(queries=str(path), num_queries=5, seed=seed), store)[0]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 5
    assert "<i>picture</i> 7" in inputs.load_queries(EvaluateConfig(num_queries=100), store)[0]


def test_shared_caption_is_one_query():
    captions = {"a": "red", "b": "red", "c": "blue", "d": "green"}
    found = inputs.sample_captions(captions, "caption", 0, 0)
    assert sorted(found.texts) == ["blue", "green", "red"]
    assert found.owners["a"] == found.owners["b"] == found.texts.index("red")
    assert (found.num_images, found.num_sharing) == (4, 2)
    sampled = inputs.sample_captions(captions, "caption", 1, 0)
    assert sorted(sampled.owners.values()).count(-1) == 4 - sum(
        v == sampled.texts[0] for v in captions.values()
    )


def test_duplicate_questions_are_asked_once():
    rated, row = [("q", "a"), ("q", "a"), ("r", "a")], ("a", "b")
    first = language_models.JudgeQuestions(rated, rated, [("overall", "q", "a", "b")] * 2)
    questions = first | language_models.JudgeQuestions(
        accuracy=[("q", "a")], sheets=[("diversity", "q", row, row)] * 2
    )
    tasks = questions.tasks()
    kinds = list(zip(tasks["kind"].to_pylist(), tasks["criterion"].to_pylist(), strict=True))
    asked = [("compare", "overall"), *[("rate", "accuracy")] * 2, *[("rate", "aesthetics")] * 2]
    assert kinds == [*asked, ("sheet", "diversity")]
    answers = pa.array([[0.7, 0.6], [4.0], [2.0], [3.0], [np.nan], [0.1, 0.2]])
    errors = pa.array(["", "", "", "", "too dark", ""])
    found = language_models.judgements_from(
        tasks.append_column("answer", answers).append_column("error", errors)
    )
    assert found.accuracy == {("q", "a"): 4.0, ("r", "a"): 2.0} and found.aesthetics["q", "a"] == 3.0
    assert found.compared == {("overall", "q", "a", "b"): (0.7, 0.6)}
    assert found.sheets == {("diversity", "q", row, row): (0.1, 0.2)}
    assert (found.num_answers, found.num_unanswered, found.errors) == (6, 1, ["too dark"])
