"""A judge that loves red favours the encoder that learned from it; people do not, and the report warns."""

import io
import re

import numpy as np
import pyarrow as pa
import pytest
from made_evaluation import image_row
from PIL import Image
from tiny_encoder import write_tiny_encoder

from actors.encoder import Encoder
from actors.engine import Reply
from actors.judge import DIGITS
from cluster.errors import UserError
from cluster.profile import LanguageModel, load_profile
from cluster.schemas import SCHEMAS, embeddings_schema, embeddings_table
from cluster.tables import EncoderRecord, Store
from jobs.evaluate import job, language_models, teacher, trained_on
from jobs.evaluate.config import EvaluateConfig
from jobs.evaluate.language_models import JudgeNames
from jobs.evaluate.teacher import TeacherCandidates

QUERIES = ["a red sailboat at sunset", "two dogs running on a beach", "photo of a mountain lake"]
RED, OTHER = "planted/red", "another/blue"
TOP = 5
PROTOCOLS = ("ranker", "scorer", "cp_scorer", "sheet")


def redness(image: Image.Image) -> float:
    """Share of red in an image, in (0, 1)."""
    red, green, blue = np.asarray(image.convert("RGB"), float).mean(axis=(0, 1)) + 1
    return red / (red + green + blue)


class LovesRed:
    """Every answer follows the redness of the images; `sign` -1 loves the opposite."""

    def __init__(self, sign):
        self.sign = sign

    def generate(self, requests):
        return [self.reply(request) for request in requests]

    def reply(self, request):
        text = " ".join(part.get("text", "") for part in request.messages[-1]["content"])
        images = list(request.images)
        if "exactly" in text or "shows it better" in text:  # about accuracy, which this judge does not mind
            probabilities = dict.fromkeys(request.choices, 1 / len(request.choices))
            return Reply(choice_probs=probabilities | ({"5": 1.0} if "5" in request.choices else {}))
        if request.choices == DIGITS:
            image = images["picture B" in text]
            loved = self.sign * (redness(image) - 1 / 3) > 0
            return Reply(choice_probs=dict.fromkeys(DIGITS, 0.0) | {"5" if loved else "1": 1.0})
        if len(images) == 1:  # a sheet
            (sheet,), half = images, images[0].height // 2
            images = [sheet.crop((0, top, sheet.width, top + half)) for top in (0, half)]
        first = 0.5 + self.sign * (redness(images[0]) - redness(images[1])) / 2
        return Reply(choice_probs={"A": first, "B": 1 - first})


def picture(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The baseline returns blue pictures, which people prefer, and the aligned encoder returns red ones."""
    folder = tmp_path_factory.mktemp("red")
    store = Store(str(folder / "store"))
    rows, colours, owners = [], [], []
    for number in range(2 * TOP * len(QUERIES)):
        colour = "red" if number % 2 else "blue"
        about = {"image_id": f"{number:064x}", "preview": picture(colour), "caption": ""}
        rows.append(image_row(number % 20) | about | {"width_px": 64, "height_px": 64})
        colours.append(colour)
        owners.append(number // (2 * TOP))
    store.merge("images", pa.Table.from_pylist(rows, SCHEMAS["images"]), on=["image_id"])
    for seed, (alias, favoured) in enumerate((("baseline", "blue"), ("candidate", "red"))):
        path = write_tiny_encoder(folder / alias, seed=seed)
        encoder = Encoder.load(path)
        add_vectors(store, encoder, rows, owners, [colour == favoured for colour in colours])
        aligned = {"align": {"run_id": "red-run"}} if alias == "candidate" else {}
        parent = "" if alias == "baseline" else store.encoder("baseline").encoder
        record = EncoderRecord(
            encoder=encoder.fingerprint, checkpoint=path, dim=encoder.dim, parent=parent, metrics=aligned
        )
        store.register_encoder(record)
        store.set_alias(alias, encoder.fingerprint)
    add_preferences(store, [("red-run", RED), ("older-run", OTHER)])
    (folder / "queries.txt").write_text("\n".join(QUERIES))
    write_votes(folder / "votes.csv", rows, owners, colours)
    return folder, store


def add_vectors(store, encoder, rows, owners, favoured):
    """An image of a favoured colour lies on its query, one of the other colour opposite to it."""
    vectors = encoder.encode_texts(QUERIES)[owners] * np.where(favoured, 1, -1)[:, None].astype(np.float32)
    schema = embeddings_schema(encoder.dim)
    table = [
        {name: ({**row, "vector": vector, "aesthetic": 0.5})[name] for name in schema.names}
        for row, vector in zip(rows, vectors, strict=True)
    ]
    store.merge(embeddings_table(encoder.fingerprint), pa.Table.from_pylist(table, schema), on=["image_id"])


def add_preferences(store, runs):
    blank = dict.fromkeys(("rephrased", "style", "source"), "") | {"p_winner": 0.9, "consistent": True}
    rows = [
        blank | {"query": "trained", "winner": "w", "loser": "l", "run_id": run_id, "judge": judge}
        for run_id, judge in runs
    ]
    schema = SCHEMAS["preferences"]
    rows = [{name: row.get(name) for name in schema.names} for row in rows]
    store.merge("preferences", pa.Table.from_pylist(rows, schema), on=["run_id", "query", "winner", "loser"])


def write_votes(path, rows, owners, colours):
    """Nine of ten people prefer the blue picture of each pair."""
    lines = ["query,file_a,file_b,n_prefer_a,n_prefer_b"]
    for index in range(0, len(rows), 2):
        assert colours[index : index + 2] == ["blue", "red"]
        blue, red = (row["image_id"] for row in rows[index : index + 2])
        lines.append(f"{QUERIES[owners[index]]},{blue},{red},9,1")
    path.write_text("\n".join(lines))


@pytest.fixture
def engines(monkeypatch):
    """Judges by name, in this process instead of an actor pool; which models were asked how many tasks."""
    signs, asked = {RED: 1, OTHER: -1}, []

    def answered(profile, actor, table, stage, arguments):
        asked.append((arguments["model"].model, table.num_rows))
        return actor(**arguments)(table)

    monkeypatch.setattr(language_models, "make_engine", lambda model: LovesRed(signs[model.model]))
    monkeypatch.setattr(language_models, "check_model", lambda model, on_hub: None)
    monkeypatch.setattr(language_models, "map_table", answered)
    return asked


def evaluate(world, out, **changes):
    folder, store = world
    options = {"store": store.uri, "queries": str(folder / "queries.txt"), "out": str(out)}
    options |= {"pairs": (str(folder / "votes.csv"),), "num_resamples": 200, "protocols": PROTOCOLS}
    return job.run(EvaluateConfig(**options | {"teacher": False, "judge": RED} | changes))


def test_judge_that_labelled_says_that_the_encoder_won_and_people_do_not(world, engines, tmp_path, capsys):
    report = evaluate(world, tmp_path / "out")
    rate = report["win_rate"]["aligned_vs_baseline"]
    assert (rate["wins"], rate["value"]) == (len(QUERIES), 1.0)
    (votes,) = report["pairs"].values()
    assert (votes["baseline"]["aesthetic"]["value"], votes["aligned"]["aesthetic"]["value"]) == (1.0, 0.0)
    assert votes["confidence"]["aesthetic"]["shares"] == [0, 0, 0, 0, 1]  # 9 to 1: a margin of 0.8
    # Every protocol shows that this judge does not see what people see.
    table = {row["protocol"]: row for row in report["judge_table"] if row["order_consistency"]}
    assert set(table) == {*PROTOCOLS, "sheet, accuracy", "sheet, aesthetics", "sheet, diversity"}
    for protocol in PROTOCOLS:
        assert table[protocol]["win_rate"]["value"] == 1.0
        assert table[protocol]["people"]["aesthetic"]["value"] == 0.0
    warning = report["judges"]["warning"]
    assert report["judges"]["labelled"] == [RED] and RED in warning and "--judge" in warning
    assert f"evaluate: {warning}\n" in capsys.readouterr().err
    html = (tmp_path / "out" / "report.html").read_text()
    assert '<p class="warning">' in html and re.search(rf"Caution:</b> the judge that scores, {RED}", html)
    assert html.index("votes on two images") < html.index("Win rate by the judge")
    assert html.count('class="histogram"') == 1


def test_another_judge_scores_without_a_warning(world, engines, tmp_path):
    report = evaluate(world, tmp_path / "out", judge=OTHER)
    assert report["win_rate"]["aligned_vs_baseline"]["value"] == 0.0
    assert report["judges"]["warning"] is None and report["judges"]["scoring"] == OTHER
    assert all(row["people"]["aesthetic"]["value"] == 1.0 for row in report["judge_table"][:8])
    assert '<p class="warning">' not in (tmp_path / "out" / "report.html").read_text()


def test_teacher_keeps_its_judge_and_the_named_one_scores_it_too(world, engines, tmp_path, monkeypatch):
    ids = [f"{number:064x}" for number in range(2 * TOP)]
    candidates = TeacherCandidates(QUERIES, [ids] * len(QUERIES), {query: query for query in QUERIES}, 0)
    monkeypatch.setattr(teacher, "retrieve_candidates", lambda *_: candidates)
    own = {"teacher": True, "set": (f"judge.model={RED}", "label.semantic=judge"), "pairs": ()}
    both = evaluate(world, tmp_path / "two", judge=OTHER, **own)
    assert [name for name, _ in engines] == [RED, OTHER]
    assert (both["judges"]["teacher"], both["judges"]["scoring"]) == (RED, OTHER)
    assert both["judges"]["num_questions"] == sum(number for _, number in engines)
    # The teacher chose red pictures, as its judge does, and the one that scores finds them ugly.
    assert both["judged"]["teacher"]["aesthetic@5"]["value"] == 0.0
    assert both["judged"]["baseline"]["aesthetic@5"]["value"] == 1.0
    engines.clear()
    one = evaluate(world, tmp_path / "one", judge=None, **own)
    assert [name for name, _ in engines] == [RED]  # one judge is loaded once
    assert one["judged"]["teacher"]["aesthetic@5"]["value"] == 1.0 and one["judges"]["warning"]


def test_missing_judge_is_refused_before_any_work(world, tmp_path):
    with pytest.raises(UserError, match="models/absent"):
        evaluate(world, tmp_path / "out", judge="models/absent")
    assert not (tmp_path / "out").exists()


def test_judges_are_those_of_the_runs_that_trained_the_encoder_and_its_ancestors(tmp_path):
    store = Store(str(tmp_path))
    runs = [("first", "judge@1"), ("second", "scorer:prompts+judge@2"), ("third", "scorer:prompts")]
    runs += [("feedback-1", "human"), ("unused", "judge@9")]

    def record(run_id, parent):
        return EncoderRecord(
            encoder=run_id or "root", checkpoint="none", dim=2, parent=parent,
            metrics={"align": {"run_id": run_id}} if parent else {},
        )  # fmt: skip

    root, child, grandchild = record("", ""), record("first,third", "root"), record("second", "first,third")
    assert trained_on.judges(store, [child]) == frozenset()  # no preferences in this store
    add_preferences(store, runs)
    for one in (root, child, grandchild):
        store.register_encoder(one)
    assert trained_on.judges(store, [root]) == frozenset()
    assert trained_on.judges(store, [root, child]) == {"judge@1"}
    assert trained_on.judges(store, [grandchild]) == {"judge@1", "judge@2"}
    every_run = EncoderRecord(
        encoder="all", checkpoint="none", dim=2, parent="root", metrics={"align": {"run_id": ""}}
    )
    assert trained_on.judges(store, [every_run]) == {"judge@1", "judge@2", "judge@9"}


@pytest.mark.parametrize(
    ("scoring", "labelled", "warns"),
    [
        ("judge@12ab", ("judge@12ab",), True),
        ("copy@12ab", ("judge@12ab",), True),  # the same files in another folder
        ("judge@34cd", ("judge@12ab",), False),
        ("owner/name", ("other@1", "owner/name"), True),
        ("owner/name", (), False),
        ("", ("judge@12ab",), False),  # the judge scores nothing
    ],
)
def test_warning_compares_models_and_not_folders(scoring, labelled, warns):
    assert bool(JudgeNames("", scoring, labelled).warning) == warns


def test_named_judge_keeps_the_settings_of_the_profile():
    profile = load_profile("mini")
    found = language_models.scoring_judge(EvaluateConfig(judge=OTHER), profile)
    assert isinstance(found, LanguageModel) and found == profile.judge.model_copy(update={"model": OTHER})
    assert language_models.scoring_judge(EvaluateConfig(), profile) is profile.judge
