"""`kallos feedback`: counts, win shares, and votes that `kallos evaluate --hpir` reads."""

import datetime

import pyarrow as pa
import pytest

from cluster.errors import UserError
from cluster.tables import SCHEMAS
from jobs.evaluate.hpir import Votes, agreement, read_hpir
from jobs.feedback.config import FeedbackConfig
from jobs.feedback.job import run

LIVE, BASELINE = ("live", "a" * 16), ("baseline", "b" * 16)
CANDIDATE = ("candidate", LIVE[1])
GROUPS = {LIVE: ["1", "2"], BASELINE: ["2", "3"], CANDIDATE: ["1", "4"]}


def row(index: int, kind: str, client: str, a=LIVE, b=None, query="red boat", **verdicts) -> dict:
    """An event of `feedback`; a higher index is later."""
    at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(minutes=index)
    texts = dict.fromkeys(("image_id", "over", "answer", "accuracy", "aesthetics", "diversity"), "")
    other_system, other_encoder = b or ("", "")
    sides = dict(system=a[0], encoder=a[1], other_system=other_system, other_encoder=other_encoder)
    shown = dict(image_ids=GROUPS[a], other_image_ids=GROUPS.get(b, []))
    return {**texts, **sides, **shown, "event_id": f"{index:04}", "at": at, "client": client, "kind": kind,
            "query": query, **verdicts}  # fmt: skip


EVENTS = [
    row(0, "click", "ada"),
    row(1, "click", "bob", BASELINE),
    row(2, "prefer", "ada"),
    row(3, "blind", "ada", LIVE, BASELINE, accuracy="a", aesthetics="tie"),
    row(
        4, "blind", "bob", BASELINE, LIVE, accuracy="b", aesthetics="b", diversity="a"
    ),  # the same two systems with sides swapped
    row(5, "blind", "eve", LIVE, BASELINE, accuracy="a", diversity="tie"),
    row(6, "blind", "eve", BASELINE, LIVE, accuracy="a"),  # her second verdict on the same results
    row(7, "blind", "eve", LIVE, BASELINE, query="a dog", diversity="a"),
]


@pytest.fixture
def filled(store):
    store.merge("feedback", pa.Table.from_pylist(EVENTS[::-1], SCHEMAS["feedback"]), on=["event_id"])
    return store


def test_the_report_counts_kinds_and_systems_and_gives_win_shares(filled):
    report = run(FeedbackConfig(store=filled.uri))
    assert report["num_events"] == 8 and report["num_preferences"] == 0
    assert report["kinds"] == {"blind": 5, "click": 2, "prefer": 1}
    assert report["systems"] == {"baseline": 6, "live": 7}
    assert report["num_votes"] == 4, "only the last of eve's two verdicts counts"
    (blind,) = report["blind"]
    assert (blind["a"]["system"], blind["b"]["encoder"]) == ("baseline", "a" * 16)
    assert blind["accuracy"] == {"a": 1, "b": 2, "tie": 0, "share_a": pytest.approx(1 / 3)}
    assert blind["aesthetics"] == {"a": 0, "b": 1, "tie": 1, "share_a": 0.25}
    assert blind["diversity"] == {"a": 1, "b": 1, "tie": 1, "share_a": 0.5}


def test_a_person_has_one_vote_on_a_query_and_two_encoders(store, tmp_path):
    """Neither swapped sides, other results, another alias nor another spelling make a second vote."""
    rows = [
        row(0, "blind", "ada", LIVE, BASELINE, accuracy="a", diversity="a"),
        row(1, "blind", "ada", BASELINE, LIVE, accuracy="a"),
        row(2, "blind", "ada", CANDIDATE, BASELINE, query="Red  boat", accuracy="tie"),
    ]
    store.merge("feedback", pa.Table.from_pylist(rows, SCHEMAS["feedback"]), on=["event_id"])
    path = str(tmp_path / "votes.parquet")
    report = run(FeedbackConfig(store=store.uri, export=path))
    assert (report["num_votes"], report["num_rows"]) == (1, 1)
    assert report["blind"][0]["accuracy"] == {"a": 0, "b": 0, "tie": 1, "share_a": 0.5}
    assert report["blind"][0]["diversity"]["a"] == 0, "it was given on other results"
    assert read_hpir(path)[0].votes["accuracy"] == Votes(0, 0, 1)


def test_an_empty_feedback_table_is_refused(store):
    """A server creates the table when it starts."""
    store.merge("feedback", SCHEMAS["feedback"].empty_table(), on=["event_id"])
    with pytest.raises(UserError, match="has no feedback"):
        run(FeedbackConfig(store=store.uri))


def test_evaluate_reads_the_export(filled, tmp_path):
    path = str(tmp_path / "new" / "votes.parquet")
    report = run(FeedbackConfig(store=filled.uri, export=path))
    assert (report["export"], report["num_rows"]) == (path, 1)
    (votes,) = read_hpir(path)
    assert (votes.query, votes.group_a, votes.group_b) == ("red boat", ("1", "2"), ("2", "3"))
    assert votes.votes == {"accuracy": Votes(2, 1), "aesthetic": Votes(1, 0, 1)}
    agrees, confidence = agreement(pa.array([0.9, 0.1]).to_numpy().reshape(1, 2), [votes.votes["aesthetic"]])
    assert agrees.tolist() == [1.0] and confidence.tolist() == [0.5]
    again = run(FeedbackConfig(store=filled.uri, export=path))
    assert again == report and [file.name for file in (tmp_path / "new").iterdir()] == ["votes.parquet"]


def test_comparisons_without_query_text_or_with_equal_results_are_not_exported(store, tmp_path):
    same = {"image_ids": ["1"], "other_image_ids": ["1"]}
    rows = [
        row(0, "blind", "ada", LIVE, BASELINE, query="", accuracy="a"),
        {**row(1, "blind", "ada", LIVE, BASELINE, accuracy="a"), **same},
    ]
    store.merge("feedback", pa.Table.from_pylist(rows, SCHEMAS["feedback"]), on=["event_id"])
    with pytest.raises(UserError, match="nothing to export"):
        run(FeedbackConfig(store=store.uri, export=str(tmp_path / "votes.parquet")))
    assert run(FeedbackConfig(store=store.uri))["num_votes"] == 2


def test_mistakes_are_refused_with_an_explanation(filled, tmp_path):
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(UserError, match=r"folder\.parquet' is a folder"):
        run(FeedbackConfig(store=filled.uri, export=str(tmp_path / "folder.parquet")))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        run(FeedbackConfig(store=filled.uri, export=str(tmp_path / "file" / "votes.parquet")))
    with pytest.raises(UserError, match=r"votes\.csv' must end in \.parquet"):
        run(FeedbackConfig(store=filled.uri, export="votes.csv"))
    with pytest.raises(UserError, match="has no feedback"):
        run(FeedbackConfig(store=str(tmp_path / "other")))
