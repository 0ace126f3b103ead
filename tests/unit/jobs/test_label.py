"""The label job without engines: queries, early errors, the arrays between its stages, rows of its tables."""

import json

import numpy as np
import pyarrow as pa
import pytest
import yaml

from cluster.errors import JobFailure, UserError
from cluster.profile import PROFILES
from cluster.tables import SCHEMAS, EncoderRecord, embeddings_schema, embeddings_table
from jobs.label.config import LabelConfig
from jobs.label.identity import short_hash
from jobs.label.job import Counts
from jobs.label.pairs import preferences
from jobs.label.prepare import LabelRun, prepare_run
from jobs.label.queries import distinct, read_queries
from jobs.label.rerank import RANKED, Ranking, ranked, row_pairs
from jobs.label.write import Provenance, Write, done_row, preference_rows, ranking_row

PROVENANCE = Provenance(run_id="r", style="original", source="lmm_score", judge="judge@1", encoder="e" * 16)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "q.txt").write_text("a cat\n\n a  cat \nred dog\n", encoding="utf-8")
    (tmp_path / "q.csv").write_text("id,query\n1,a cat\n2,red dog\n", encoding="utf-8")
    lines = [json.dumps({"query": text}) for text in ("a cat", "red dog", "a cat")]
    (tmp_path / "q.jsonl").write_text("\n".join(lines), encoding="utf-8")
    pa.parquet.write_table(pa.table({"query": ["a cat", None, "red dog"]}), tmp_path / "q.parquet")
    (tmp_path / "other.csv").write_text("text\nx\n", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("\n\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", ["q.txt", "q.csv", "q.jsonl", "q.parquet"])
def test_queries_are_read_from_every_kind_of_file(files, name):
    assert read_queries(str(files / name)) == ["a cat", "red dog"]
    assert read_queries(str(files / name), 1) == ["a cat"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("none.txt", "does not exist"), ("other.csv", "lacks the column.* query"), ("empty.txt", "no query")],
)
def test_unusable_query_files_are_refused(files, name, words):
    with pytest.raises(UserError, match=words):
        read_queries(str(files / name))


def test_distinct_queries_are_compared_after_joining_lines_and_spaces():
    assert distinct([" a  b", "a b", "", "c"]) == ["a b", "c"]


def test_empty_store_is_refused_before_any_work(tmp_path):
    with pytest.raises(UserError, match="kallos ingest"):
        prepare_run(LabelConfig(store=str(tmp_path / "store")))


@pytest.fixture
def prepare(store, tmp_path):
    """`prepare_run` for changed settings of `mini`, by section, and options of the command."""
    encoder = "e" * 16
    store.register_encoder(EncoderRecord(encoder=encoder, checkpoint="none", dim=2))
    store.set_alias("baseline", encoder)
    store.merge(embeddings_table(encoder), embeddings_schema(2).empty_table(), on=["image_id"])

    def prepare(changes: dict, **options) -> LabelRun:
        values = yaml.safe_load((PROFILES / "mini.yaml").read_text())
        for section, changed in changes.items():
            values[section] |= changed
        profile = tmp_path / "own.yaml"
        profile.write_text(yaml.safe_dump(values))
        return prepare_run(LabelConfig(store=store.uri, encoder="baseline", profile=str(profile), **options))

    return prepare


def test_encoder_whose_folder_is_gone_is_refused_before_any_work(store, tmp_path):
    encoder, gone = "e" * 16, str(tmp_path / "gone")
    store.register_encoder(EncoderRecord(encoder=encoder, checkpoint=gone, dim=2))
    store.merge(embeddings_table(encoder), embeddings_schema(2).empty_table(), on=["image_id"])
    with pytest.raises(UserError, match=r"gone of encoder eeee.* does not exist: put it back"):
        prepare_run(LabelConfig(store=store.uri, encoder=encoder))


def test_grid_that_top_k_cannot_fill_is_refused(prepare):
    assert prepare({}, top_k=97).retrieval.top_k == 97
    with pytest.raises(UserError, match=r"top_k 96 is too small.*97 images.*raise top_k"):
        prepare({}, top_k=96)
    with pytest.raises(UserError, match="two images"):
        prepare({}, rows=1, columns=1)


@pytest.mark.parametrize(
    ("changes", "options", "matters"),
    [
        ({}, {}, False),
        ({"judge": {"image_px": 56}}, {}, True),
        ({"judge": {"image_px": 56}}, {"source": "scorer"}, False),
        ({"rephraser": {"temperature": 0.7}}, {}, True),
        ({"rephraser": {"max_tokens": 48}}, {}, True),
        ({"rephraser": {"max_tokens": 48}}, {"style": "original"}, False),
        ({"align": {"epochs": 9}}, {}, False),
    ],
)
def test_run_id_changes_with_every_setting_that_changes_labels(prepare, changes, options, matters):
    changed, plain = prepare(changes, **options), prepare({}, **options)
    assert (changed.provenance.run_id != plain.provenance.run_id) == matters


def test_row_pairs_stay_inside_rows():
    assert row_pairs(5, columns=3) == [(0, 1), (0, 2), (1, 2), (3, 4)]


def ranking_of(scores: list[float]) -> Ranking:
    row = {"query": "q", "rephrased": "q, fine", "style": "original", "rephrase_error": ""}
    ids = [f"i{index}" for index in range(len(scores))]
    return Ranking.of({**row, "image_ids": ids, "retrieval_scores": scores})


def test_unrated_images_are_dropped_and_counted():
    c = ranking_of([0.4, 0.3, 0.2])
    c.aesthetic = np.array([2.0, np.nan, 4.0])
    c.drop_unrated(c.aesthetic)
    assert c.image_ids == ["i0", "i2"] and c.num_failed == 1
    assert c.aesthetic.tolist() == [2.0, 4.0] and c.semantic.tolist() == [0.4, 0.2]


def test_query_without_pairs_carries_an_error():
    row = ranked(ranking_of([0.4, 0.3]), [])
    assert "no pair is left" in row["error"] and done_row(row)["error"] == row["error"]
    assert "only 1 images" in ranked(ranking_of([0.4]), [])["error"]


def test_a_ranking_becomes_rows_of_preferences_and_rankings():
    c = ranking_of([0.9, 0.5])
    c.aesthetic = np.array([1.0, 3.0])
    pairs = preferences([[1, 0]], c.semantic, c.aesthetic)
    c.overall[1, 0] = 0.5
    row = pa.Table.from_pylist([ranked(c, pairs)], RANKED).to_pylist()[0]
    stored = pa.Table.from_pylist(preference_rows(row, PROVENANCE), SCHEMAS["preferences"]).to_pylist()
    assert [(p["winner"], p["loser"], p["winner_cell"], p["loser_cell"]) for p in stored] == [
        ("i1", "i0", [0, 0], [0, 1])
    ]
    assert stored[0]["query"] == "q" and stored[0]["judge"] == "judge@1" and stored[0]["run_id"] == "r"
    assert (stored[0]["aesthetic_gap"], stored[0]["semantic_gap"]) == (2.0, pytest.approx(-0.4))
    assert [name for name, value in stored[0].items() if value is None] == ["p_winner"]
    ranking = pa.Table.from_pylist([ranking_row(row, PROVENANCE)], SCHEMAS["rankings"]).to_pylist()[0]
    assert ranking["aesthetic_scores"] == [1.0, 3.0] and None not in ranking.values()


def test_short_hash_depends_on_values_and_not_on_their_order():
    assert short_hash({"a": 1, "b": 2}) == short_hash({"b": 2, "a": 1}) != short_hash({"a": 1, "b": 3})


def ranked_rows(*errors: str, unreadable: dict[str, str] | None = None) -> pa.Table:
    """Rows of `RANKED` for q0, q1, ...: with these errors, or with one pair."""
    rows = []
    for number, error in enumerate(errors):
        row = ranking_of([0.9, 0.5])
        row.row["query"], row.error, row.unreadable = f"q{number}", error, unreadable or {}
        pairs = preferences([[0, 1]], row.semantic, np.array([3.0, 1.0]))
        rows.append(ranked(row, [] if error else pairs))
    return pa.Table.from_pylist(rows, RANKED)


def test_reasons_of_queries_without_labels_and_of_images_left_out_are_in_rejects(store):
    image = "a" * 64
    batch = ranked_rows(
        "", "the engine refused it", unreadable={image: f"image {image} cannot be read: no image"}
    )
    done = Write(store=store, provenance=PROVENANCE)(batch)
    Write(store=store, provenance=PROVENANCE)(batch)  # a repeated run adds nothing
    rejects = {(row["uri"], row["stage"]): row["error"] for row in store.read("rejects").to_pylist()}
    assert rejects == {
        ("q1", "label"): "the engine refused it",
        (image, "label"): f"image {image} cannot be read: no image",
    }
    assert store.count("rejects") == 2 and store.read("rankings")["query"].to_pylist() == ["q0"]
    counts = Counts()
    counts.add(done)
    assert counts.figures() == {"num_errors": 1, "num_failed_answers": 0, "num_unreadable_images": 1}


def test_job_that_labels_nothing_fails_with_the_first_reason_and_the_counts(store):
    counts = Counts()
    counts.add(Write(store=store, provenance=PROVENANCE)(ranked_rows("text only", "another")))
    with pytest.raises(
        JobFailure, match=r"None of the 2 queries was labelled.*rejects.*the first is: text only"
    ):
        counts.report(2, 0, store)
    counts.report(3, 1, store)  # one was labelled before
    counts.report(3, 0, store)  # one was labelled now
