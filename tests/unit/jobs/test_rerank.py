"""The rerank stage on stored previews, with a fake engine that prefers bright images."""

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import jobs.label.rerank as rerank
from actors.engine import Reply, Request
from actors.judge import DIGITS
from cluster.profile import LanguageModel, Stage
from cluster.sql import in_list
from cluster.tables import SCHEMAS, now
from jobs.label.pairs import Grid

LEVELS = (200, 20, 160, 60, 120, 100)
MODEL = LanguageModel(model="none/none", max_tokens=1, image_px=16, stage=Stage())


class BrightnessEngine:
    """Rates by brightness, fails for images darker than `blind_below`, and counts the requests."""

    def __init__(self, blind_below: int = 0):
        self.blind_below = blind_below
        self.num_requests = 0

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        self.num_requests += len(requests)
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Reply:
        levels = [image.getpixel((4, 4))[0] for image in request.images]
        if min(levels) < self.blind_below:
            return Reply(error="too dark to see")
        if request.choices == DIGITS:
            high = levels[0] / 255
            return Reply(choice_probs={"1": 1 - high, "2": 0.0, "3": 0.0, "4": 0.0, "5": high})
        share = levels[0] / sum(levels)
        return Reply(choice_probs={"A": share, "B": 1 - share})


@pytest.fixture
def gallery(store):
    """Images i0 to i5, in the grey of `LEVELS`."""
    rows = []
    for number, level in enumerate(LEVELS):
        file = io.BytesIO()
        Image.new("RGB", (32, 32), (level,) * 3).save(file, "JPEG", quality=95)
        row = dict.fromkeys(SCHEMAS["images"].names, "") | {"tags": [], "added_at": now()}
        rows.append(
            row | {"image_id": f"i{number}", "preview": file.getvalue(), "width_px": 32, "height_px": 32}
        )
    store.merge("images", pa.Table.from_pylist(rows, SCHEMAS["images"]), on=["image_id"])
    return store


def stage(store, engine, source, semantic="encoder", grid=Grid(2, 3, 1), monkeypatch=None):  # noqa: B008
    monkeypatch.setattr(rerank, "make_engine", lambda model: engine)
    rule = rerank.RankingRule(source=source, semantic=semantic, grid=grid)
    return rerank.Rerank(store=store, rule=rule, judge=MODEL)


def batch(*errors: str) -> pa.Table:
    ids = [f"i{n}" for n in range(len(LEVELS))]
    scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    rows = [
        {
            "query": f"q{n}",
            "rephrased": f"q{n}, fine",
            "style": "original",
            "rephrase_error": error,
            "image_ids": [] if error else ids,
            "retrieval_scores": [] if error else scores,
        }
        for n, error in enumerate(errors)
    ]
    return pa.Table.from_pylist(rows)


def cells(row: dict) -> dict[str, tuple[int, int]]:
    named = [(pair["winner"], tuple(pair["winner_cell"])) for pair in row["pairs"]]
    return dict(named + [(pair["loser"], tuple(pair["loser_cell"])) for pair in row["pairs"]])


# Rows by retrieval: i0 i1 i2 / i3 i4 i5, each by brightness.
BY_BRIGHTNESS = {"i0": (0, 0), "i2": (0, 1), "i1": (0, 2), "i4": (1, 0), "i5": (1, 1), "i3": (1, 2)}


@pytest.mark.parametrize("source", ["lmm_score", "lmm_pair"])
def test_rows_are_ordered_by_the_judge(gallery, monkeypatch, source):
    rows = stage(gallery, BrightnessEngine(), source, monkeypatch=monkeypatch)(batch("")).to_pylist()
    assert cells(rows[0]) == BY_BRIGHTNESS
    assert len(rows[0]["pairs"]) == 3 * 6 - 6 and rows[0]["error"] == ""


def test_image_is_rated_once_for_all_queries(gallery, monkeypatch):
    engine = BrightnessEngine()
    reranker = stage(gallery, engine, "lmm_score", monkeypatch=monkeypatch)
    first = reranker(batch("", "")).to_pylist()
    again = reranker(batch("")).to_pylist()
    assert engine.num_requests == len(LEVELS)
    assert first[0]["pairs"] == again[0]["pairs"]


def test_pairs_have_the_log_odds_of_the_judge_and_the_gap_of_the_cosines(gallery, monkeypatch):
    engine = BrightnessEngine()
    row = stage(gallery, engine, "lmm_pair", monkeypatch=monkeypatch)(batch("")).to_pylist()[0]
    assert engine.num_requests == 2 * (3 + 3)  # both orders of the pairs inside two rows
    pair = next(pair for pair in row["pairs"] if (pair["winner"], pair["loser"]) == ("i0", "i2"))
    assert pair["aesthetic_gap"] == pytest.approx(np.log(200 / 160), abs=0.05)
    assert pair["semantic_gap"] == pytest.approx(0.9 - 0.7)
    assert all(pair["consistent"] and pair["overall"] is None for pair in row["pairs"])


class FirstImageEngine(BrightnessEngine):
    """Calls the first of two images the better answer, whatever it shows."""

    def _reply(self, request: Request) -> Reply:
        if "better answer" in str(request.messages):
            return Reply(choice_probs={"A": 0.9, "B": 0.1})
        return super()._reply(request)


@pytest.mark.parametrize(("engine", "share"), [(BrightnessEngine(), 1.0), (FirstImageEngine(), 0.5)])
def test_judge_is_asked_outright_about_a_few_pairs_in_both_orders(gallery, monkeypatch, engine, share):
    reranker = stage(gallery, engine, "lmm_score", grid=Grid(1, 6, 1), monkeypatch=monkeypatch)
    reranker.num_asked = 4
    first, again = (reranker(batch("", "")).to_pylist() for _ in range(2))
    assert engine.num_requests == len(LEVELS) + 2 * 2 * 2 * 4
    for row in first:
        assert [pair["overall"] for pair in row["pairs"] if pair["overall"] is not None] == [share] * 4
    assert first == again  # the pairs depend on the query alone


def test_pair_without_an_answer_outright_has_no_share(gallery, monkeypatch):
    class Silent(BrightnessEngine):
        def _reply(self, request: Request) -> Reply:
            return Reply(error="no") if len(request.images) == 2 else super()._reply(request)

    reranker = stage(gallery, Silent(), "lmm_score", monkeypatch=monkeypatch)
    reranker.num_asked = 4
    row = reranker(batch("")).to_pylist()[0]
    assert len(row["pairs"]) == 12 and all(pair["overall"] is None for pair in row["pairs"])


def test_accuracy_of_the_judge_replaces_the_cosine(gallery, monkeypatch):
    reranker = stage(gallery, BrightnessEngine(), "lmm_score", semantic="judge", monkeypatch=monkeypatch)
    row = reranker(batch("")).to_pylist()[0]
    assert row["image_ids"] == ["i0", "i2", "i4", "i5", "i3", "i1"]
    assert np.all(np.diff(row["semantic_scores"]) < 0) and max(row["semantic_scores"]) > 1


@pytest.mark.parametrize("source", ["lmm_score", "lmm_pair"])
def test_missing_answer_gives_no_label(gallery, monkeypatch, source):
    row = stage(gallery, BrightnessEngine(blind_below=40), source, monkeypatch=monkeypatch)(
        batch("")
    ).to_pylist()[0]
    pairs = {frozenset((pair["winner"], pair["loser"])) for pair in row["pairs"]}
    if source == "lmm_score":
        assert row["num_failed_answers"] == 1 and "i1" not in row["image_ids"]
    else:
        assert row["num_failed_answers"] == 2
        assert not pairs & {frozenset(("i0", "i1")), frozenset(("i1", "i2"))}


def test_query_without_any_answer_carries_an_error(gallery, monkeypatch):
    reranker = stage(gallery, BrightnessEngine(blind_below=256), "lmm_score", monkeypatch=monkeypatch)
    rows = reranker(batch("", "no rephrasing")).to_pylist()
    assert "no answer 6 times" in rows[0]["error"] and rows[1]["error"] == "no rephrasing"
    assert rows[0]["pairs"] == rows[1]["pairs"] == []


def test_scorer_needs_no_judge_and_no_image(store, monkeypatch):
    class FirstNumber:
        def score(self, vectors):
            return np.asarray(vectors)[:, 0]

    monkeypatch.setattr(rerank, "make_engine", lambda model: pytest.fail("a judge was loaded"))
    rule = rerank.RankingRule(source="scorer", semantic="encoder", grid=Grid(2, 3, 1))
    reranker = rerank.Rerank(store=store, rule=rule, judge=MODEL, scorer=FirstNumber())
    vectors = [[[level / 255, 0.0] for level in LEVELS]]
    row = reranker(batch("").append_column("vectors", pa.array(vectors))).to_pylist()[0]
    assert cells(row) == BY_BRIGHTNESS


FAULTS = ["the preview is damaged", "the image is deleted"]


def spoil(gallery, image_ids: list[str], how: str) -> None:
    where = in_list("image_id", image_ids)
    if how == "the image is deleted":
        gallery.open("images").delete(where)
    else:
        gallery.open("images").update(where=where, values={"preview": b"no image"})


@pytest.mark.parametrize("how", FAULTS)
@pytest.mark.parametrize("semantic", ["encoder", "judge"])
@pytest.mark.parametrize("source", ["lmm_score", "lmm_pair"])
def test_image_that_cannot_be_read_leaves_the_candidates(gallery, monkeypatch, source, semantic, how):
    spoil(gallery, ["i1"], how)
    reranker = stage(gallery, BrightnessEngine(), source, semantic, Grid(1, 5, 1), monkeypatch)
    rows = reranker(batch("", "")).to_pylist()
    for row in rows:
        assert sorted(row["image_ids"]) == ["i0", "i2", "i3", "i4", "i5"] and len(row["pairs"]) == 10
        assert [image["image_id"] for image in row["unreadable"]] == ["i1"]
        assert (row["error"], row["num_failed_answers"]) == ("", 0)


def test_grid_is_filled_from_the_images_that_can_be_read(gallery, monkeypatch):
    """Of six candidates in two rows of two, the first four by retrieval that can be read."""
    spoil(gallery, ["i0", "i2"], FAULTS[0])
    reranker = stage(gallery, BrightnessEngine(), "lmm_score", grid=Grid(2, 2, 1), monkeypatch=monkeypatch)
    assert reranker(batch("")).to_pylist()[0]["image_ids"] == ["i1", "i3", "i4", "i5"]


@pytest.mark.parametrize("how", FAULTS)
def test_query_whose_images_cannot_be_read_becomes_an_error_with_the_reason(gallery, monkeypatch, how):
    spoil(gallery, [f"i{number}" for number in range(1, len(LEVELS))], how)
    row = stage(gallery, BrightnessEngine(), "lmm_score", monkeypatch=monkeypatch)(batch("")).to_pylist()[0]
    reason = "not an image" if how == FAULTS[0] else "is not in the table images"
    assert row["error"].startswith("no pair is left: 5 images cannot be read") and reason in row["error"]


def test_error_of_a_query_names_why_the_judge_gave_no_answer(gallery, monkeypatch):
    reranker = stage(gallery, BrightnessEngine(blind_below=256), "lmm_score", monkeypatch=monkeypatch)
    assert "6 times, the first time because too dark to see" in reranker(batch("")).to_pylist()[0]["error"]


def test_image_on_which_the_engine_raises_leaves_the_candidates(gallery, monkeypatch):
    class Fragile(BrightnessEngine):
        def generate(self, requests):
            if any(image.getpixel((4, 4))[0] > 190 for request in requests for image in request.images):
                raise RuntimeError("illegal memory access")
            return super().generate(requests)

    row = stage(gallery, Fragile(), "lmm_score", monkeypatch=monkeypatch)(batch("")).to_pylist()[0]
    assert (row["error"], row["num_failed_answers"]) == ("", 1)
    assert sorted(row["image_ids"]) == ["i1", "i2", "i3", "i4", "i5"]
