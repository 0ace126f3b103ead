"""The page of `kallos label --explain`, from hand-made rows."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import JobFailure, UserError
from cluster.tables import SCHEMAS
from jobs.label import explain
from jobs.label.calibration import Calibration
from jobs.label.config import LabelConfig
from jobs.label.pairs import Grid
from jobs.label.rerank import RankingRule
from jobs.label.write import Provenance

IDS = [f"{number:064x}" for number in range(4)]
PROVENANCE = Provenance("run1", "kw_dict", "lmm_score", "judge@1", "e" * 16)
PAIR = {"winner": IDS[2], "loser": IDS[0], "aesthetic_gap": 2.0, "semantic_gap": -0.5, "overall": 1.0,
        "winner_cell": [0, 0], "loser_cell": [0, 1], "consistent": True}  # fmt: skip
NEAR_TIE = PAIR | {"aesthetic_gap": 0.0, "semantic_gap": 0.0, "overall": None, "consistent": False}
ROW = {
    "query": "a <b>boat</b>",
    "rephrased": "a boat, golden light",
    "image_ids": [IDS[0], IDS[2]],
    "semantic_scores": [4.5, 4.0],
    "aesthetic_scores": [1.25, 3.25],
    "pairs": [NEAR_TIE, PAIR],
    "num_failed_answers": 0,
    "unreadable": [],
}
BINS = ({"p": 0.6, "share": 0.55, "num_pairs": 10}, {"p": 0.9, "share": 0.95, "num_pairs": 40})
CALIBRATED = Calibration("order consistency", (1.0, 1.0), 50, 0.05, 0.2, BINS)


@pytest.fixture
def draw(store):
    """The page of `ROW`; the last of the four retrieved images was deleted."""
    nothing = dict.fromkeys(SCHEMAS["images"].names)
    rows = [nothing | {"image_id": i, "preview": i.encode(), "caption": i[-1]} for i in IDS[:3]]
    store.merge("images", pa.Table.from_pylist(rows, SCHEMAS["images"]), on=["image_id"])
    label_run = SimpleNamespace(
        store=store, provenance=PROVENANCE, rule=RankingRule("lmm_score", "judge", Grid(1, 2, 1))
    )
    return lambda calibration: explain.page(label_run, {"image_ids": IDS}, ROW, calibration)


def test_page_shows_all_retrieved_images_and_marks_those_of_the_grid(draw):
    html = draw(CALIBRATED)
    assert html.count("background-image:url(data:image/jpeg;base64,") == 3 and html.count(">deleted") == 1
    assert html.count('class="t i0 in"') == html.count('class="t i2 in"') == 1
    assert "://" not in html and "<script" not in html


def test_page_orders_the_grid_by_beauty_and_the_pairs_by_certainty(draw):
    html = draw(CALIBRATED)
    assert html.index("beauty 3.25") < html.index("beauty 1.25")
    assert html.index(f"{1 / (1 + np.exp(-1.5)):.3f}") < html.index("0.500")
    assert "2 pairs, 1 of them near ties" in html and html.count("the orders disagree") == 1
    assert "<td>winner</td>" in html


def test_page_escapes_the_query(draw):
    assert "a &lt;b&gt;boat&lt;/b&gt;" in draw(CALIBRATED) and "<b>boat" not in draw(CALIBRATED)


def test_page_has_a_reliability_diagram_only_if_calibrated(draw):
    html = draw(CALIBRATED)
    assert html.count("<circle") == 2 and "expected calibration error 0.050, 0.200 before" in html
    html = draw(Calibration("none", (1.0, 1.0)))
    assert "<circle" not in html and "p_winner is not calibrated" in html


def test_page_is_named_after_the_query():
    name = explain.check(LabelConfig(explain="  A harbour,\n at dusk!"))
    assert (name[0], str(name[1])) == ("A harbour, at dusk!", "runs/label/explain/a-harbour-at-dusk.html")
    assert str(explain.check(LabelConfig(explain="?!"))[1]).endswith("/query.html")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"explain": " "}, "no query"),
        ({"explain": "x", "num_queries": 3}, "--num-queries has no use"),
        ({"explain": "x", "queries": "q.txt"}, "--queries has no use"),
        ({"explain": "x", "out": "page.png"}, "ends in .html"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        explain.check(LabelConfig(**options))


def test_query_that_cannot_be_labelled_is_a_failure_with_its_reason(monkeypatch):
    class Rows(list):
        def materialize(self):
            return self

        def take_all(self):
            return list(self)

    label_run = SimpleNamespace(
        config=None,
        connect=lambda: None,
        retrieved=lambda queries: Rows([{"image_ids": []}]),
        ranked=lambda rows, scorer: Rows([ROW | {"error": "only 0 images were retrieved"}]),
    )
    monkeypatch.setattr(explain, "make_scorer", lambda config, label_run: None)
    with pytest.raises(JobFailure, match=r"boat.*only 0 images were retrieved"):
        explain.trace(label_run, ROW["query"])
