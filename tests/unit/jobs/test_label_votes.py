"""Votes on pairs of images: from a table, from people's direct choices, joined with the scores of a run."""

import json
from types import SimpleNamespace

import pyarrow as pa
import pytest

from cluster.errors import UserError
from cluster.tables import SCHEMAS, Store, embeddings_schema, embeddings_table, now
from jobs.label import votes
from jobs.label.calibration import MIN_PAIRS
from jobs.label.votes import Votes, added_up, choices, evidence, gaps_in, gaps_of, requested_votes

ENCODER = "e" * 16
IDS = [f"{number:064x}" for number in range(MIN_PAIRS + 1)]


def test_votes_on_a_pair_are_added_up_in_either_order():
    rows = [
        ("q", "a", "b", 3.0, 4.0),
        ("q", "b", "a", 2.0, 2.5),
        ("q", "a", "a", 1.0, 1.0),
        ("r", "b", "c", 0, 0),
    ]
    assert added_up(rows) == {("q", "a", "b"): Votes(3.5, 6.5)}


def choose(store: Store, *choices: tuple[str, str, str, str]) -> None:
    """Direct choices (client, query, chosen, other), one after the other."""
    rows = []
    for number, (client, query, chosen, other) in enumerate(choices):
        row = dict.fromkeys(SCHEMAS["feedback"].names, "") | {"image_ids": [], "other_image_ids": []}
        own = {"client": client, "query": query, "image_id": chosen, "over": other}
        rows.append(row | own | {"event_id": str(number), "kind": "prefer", "at": now()})
    store.merge("feedback", pa.Table.from_pylist(rows, SCHEMAS["feedback"]), on=["event_id"])


def test_last_choice_of_a_person_counts(store):
    choose(
        store,
        ("p", "a cat", "x", "y"),
        ("p", "A  cat", "y", "x"),
        ("s", "a cat", "x", "y"),
        ("p", "", "x", "y"),
    )
    assert sorted(row[:3] for row in choices(store)) == [("A  cat", "y", "x"), ("a cat", "x", "y")]


def test_evidence_joins_votes_and_gaps_and_leaves_out_pairs_without_scores():
    given = {
        ("q", "a", "b"): Votes(3.0, 4.0),
        ("r", "a", "b"): Votes(0.5, 2.0),
        ("s", "a", "b"): Votes(1.0, 1.0),
    }
    found = evidence("votes", given, {("q", "a", "b"): (1.0, 0.1), ("r", "a", "b"): (-2.0, 0.0)})
    assert found.gaps.tolist() == [[1.0, 0.1], [-2.0, 0.0]] and found.share.tolist() == [0.75, 0.25]
    assert found.weight.tolist() == pytest.approx([4 / 3, 2 / 3]) and found.queries.tolist() == ["q", "r"]
    assert evidence("votes", {}, {}).num_pairs == 0


@pytest.fixture
def label_run(store) -> SimpleNamespace:
    """A run whose encoder has embedded all images of `IDS` but the last."""
    table = pa.Table.from_pylist(
        [
            dict.fromkeys(embeddings_schema(2).names) | {"image_id": image_id, "vector": [1.0, 0.0]}
            for image_id in IDS[:-1]
        ],
        embeddings_schema(2),
    )
    store.merge(embeddings_table(ENCODER), table, on=["image_id"])
    images = [
        dict.fromkeys(SCHEMAS["images"].names) | {"image_id": i, "uri": f"/p/{i[-4:]}.jpg"} for i in IDS
    ]
    store.merge("images", pa.Table.from_pylist(images, SCHEMAS["images"]), on=["image_id"])
    encoder, provenance = SimpleNamespace(encoder=ENCODER), SimpleNamespace(run_id="r")
    return SimpleNamespace(store=store, encoder=encoder, provenance=provenance)


def table_of(folder, num_pairs: int) -> str:
    rows = [
        {
            "query": f"q{n}",
            "file_a": f"{IDS[n][-4:]}.jpg",
            "file_b": IDS[0],
            "n_prefer_a": 1,
            "n_prefer_b": 2,
            "n_tie": 1,
        }
        for n in range(1, num_pairs + 1)
    ]
    path = folder / "votes.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def test_table_with_too_few_pairs_of_embedded_images_is_refused(label_run, tmp_path):
    with pytest.raises(UserError, match=r"votes on 39 pairs.*needs 40"):
        requested_votes(table_of(tmp_path, MIN_PAIRS), label_run)  # the last image is not embedded


def test_table_of_votes_is_read_by_image_id_with_ties_as_halves(label_run, store, tmp_path):
    row = dict.fromkeys(embeddings_schema(2).names) | {"image_id": IDS[-1], "vector": [1.0, 0.0]}
    store.merge(embeddings_table(ENCODER), pa.Table.from_pylist([row], embeddings_schema(2)), on=["image_id"])
    source, found = requested_votes(table_of(tmp_path, MIN_PAIRS), label_run)
    assert source == "votes" and len(found) == MIN_PAIRS
    assert found["q1", IDS[0], IDS[1]] == Votes(2.5, 4.0)


def test_without_a_table_the_choices_on_embedded_images_count(label_run, store):
    assert requested_votes(None, label_run) == ("feedback", {})
    choose(store, ("p", "q", IDS[1], IDS[0]), ("p", "q", IDS[2], IDS[-1]))
    assert requested_votes(None, label_run) == ("feedback", {("q", IDS[0], IDS[1]): Votes(0.0, 1.0)})


def test_each_voted_pair_is_scored_once(store, monkeypatch):
    asked = []

    def score(pairs, label_run):
        asked.append(len(pairs))
        return {pair: (1.0, 0.0) for pair in pairs[1:]}

    monkeypatch.setattr(votes, "score", score)
    label_run = SimpleNamespace(store=store, provenance=SimpleNamespace(run_id="r"))
    given = {(f"q{n}", "a", "b"): Votes(1.0, 1.0) for n in range(MIN_PAIRS)}
    pair = {"run_id": "r", "first": "a", "second": "b", "aesthetic_gap": 2.0, "semantic_gap": 0.5}
    rows = [{**pair, "query": f"q{n}"} for n in range(10)]
    rows.append(rows[0] | {"run_id": "another", "query": "q20"})
    store.merge("voted_pairs", pa.Table.from_pylist(rows, SCHEMAS["voted_pairs"]), on=votes.KEY)
    found = gaps_of(given, label_run)
    assert asked == [MIN_PAIRS - 10] and len(found) == MIN_PAIRS - 1
    assert found["q0", "a", "b"] == (2.0, 0.5) and found["q20", "a", "b"] == (1.0, 0.0)


def test_too_few_votes_are_not_scored(store, monkeypatch):
    monkeypatch.setattr(votes, "score", lambda pairs, label_run: pytest.fail("scored"))
    label_run = SimpleNamespace(store=store, provenance=SimpleNamespace(run_id="r"))
    assert gaps_of({("q", "a", "b"): Votes(1.0, 1.0)}, label_run) == {}


def test_gaps_of_a_voted_pair_are_found_whichever_image_won():
    pair = {"winner": "b", "loser": "a", "aesthetic_gap": 2.0, "semantic_gap": -0.5}
    rows = [{"query": "q", "pairs": [pair]}, {"query": "r", "pairs": []}]
    found = gaps_in(rows, [("q", "a", "b"), ("q", "b", "a"), ("r", "a", "b")])
    assert found == {("q", "a", "b"): (-2.0, 0.5), ("q", "b", "a"): (2.0, -0.5)}
