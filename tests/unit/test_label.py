"""The label job without engines: queries, early errors, the arrays between its stages, rows of its tables."""

import json

import numpy as np
import pyarrow as pa
import pytest
import yaml

from cluster.errors import UserError
from cluster.profile import PROFILES
from cluster.tables import SCHEMAS, EncoderRecord, embeddings_schema, embeddings_table
from jobs.label.config import LabelConfig
from jobs.label.job import make_plan, short_hash
from jobs.label.pairs import preferences
from jobs.label.queries import distinct, read_queries
from jobs.label.rerank import RANKED, Candidates, ranked, row_pairs, win_shares
from jobs.label.write import Run, done_row, preference_rows, ranking_row

RUN = Run(run_id="r", style="original", source="lmm_score", judge="judge@1", encoder="e" * 16)


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
def test_queries_of_every_kind_of_file(files, name):
    assert read_queries(str(files / name)) == ["a cat", "red dog"]
    assert read_queries(str(files / name), 1) == ["a cat"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("none.txt", "does not exist"), ("other.csv", "lacks the column.* query"), ("empty.txt", "no query")],
)
def test_files_that_cannot_be_used(files, name, words):
    with pytest.raises(UserError, match=words):
        read_queries(str(files / name))


def test_distinct_is_by_line():
    assert distinct([" a  b", "a b", "", "c"]) == ["a b", "c"]


def test_an_empty_store_is_told_before_any_work(tmp_path):
    with pytest.raises(UserError, match="kallos ingest"):
        make_plan(LabelConfig(store=str(tmp_path / "store")))


@pytest.fixture
def plan_of(store, tmp_path):
    """A function from settings of `mini` that change, by group, and fields of the config to a plan."""
    encoder = "e" * 16
    store.register_encoder(EncoderRecord(encoder=encoder, checkpoint="none", dim=2))
    store.set_alias("baseline", encoder)
    store.merge(embeddings_table(encoder), embeddings_schema(2).empty_table(), on=["image_id"])

    def plan(changes: dict, **fields):
        values = yaml.safe_load((PROFILES / "mini.yaml").read_text())
        for group, changed in changes.items():
            values[group] |= changed
        profile = tmp_path / "own.yaml"
        profile.write_text(yaml.safe_dump(values))
        return make_plan(LabelConfig(store=store.uri, encoder="baseline", profile=str(profile), **fields))

    return plan


def test_a_grid_that_top_k_cannot_fill_is_refused(plan_of):
    assert plan_of({}, top_k=97).top_k == 97
    with pytest.raises(UserError, match=r"top_k 96 is too small.*97 images.*raise top_k"):
        plan_of({}, top_k=96)
    with pytest.raises(UserError, match="two images"):
        plan_of({}, rows=1, columns=1)


@pytest.mark.parametrize(
    ("changes", "fields", "matters"),
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
def test_whatever_changes_answers_makes_another_run(plan_of, changes, fields, matters):
    assert (plan_of(changes, **fields).run.run_id != plan_of({}, **fields).run.run_id) == matters


def test_row_pairs_stay_inside_rows():
    assert row_pairs(5, columns=3) == [(0, 1), (0, 2), (1, 2), (3, 4)]


def test_win_shares_by_hand():
    nan = float("nan")
    judged = {(0, 1): (0.9, True), (1, 0): (0.1, True), (0, 2): (nan, False), (2, 0): (nan, False)}
    assert win_shares(4, judged).tolist() == pytest.approx([0.9, 0.1, 0.5, 0.5])


def candidates(scores: list[float]) -> Candidates:
    row = {"query": "q", "rephrased": "q, fine", "style": "original", "error": "", "retrieval_scores": scores}
    return Candidates.of({**row, "image_ids": [f"i{n}" for n in range(len(scores))]})


def test_images_without_an_answer_are_dropped_and_counted():
    c = candidates([0.4, 0.3, 0.2])
    c.aesthetic = np.array([2.0, np.nan, 4.0])
    c.drop_unanswered(c.aesthetic)
    assert c.image_ids == ["i0", "i2"] and c.num_failed == 1
    assert c.aesthetic.tolist() == [2.0, 4.0] and c.semantic.tolist() == [0.4, 0.2]


def test_a_query_without_pairs_is_an_error_and_not_a_ranking():
    row = ranked(candidates([0.4]), [])
    assert "no pair is left" in row["error"] and done_row(row)["error"] == row["error"]


def test_rows_of_the_tables():
    c = candidates([0.9, 0.5])
    c.aesthetic = np.array([1.0, 3.0])
    pairs = preferences([[1, 0]], c.semantic, c.aesthetic, semantic_unit=1.0, aesthetic_unit=1.0)
    row = pa.Table.from_pylist([ranked(c, pairs)], RANKED).to_pylist()[0]
    stored = pa.Table.from_pylist(preference_rows(row, RUN), SCHEMAS["preferences"]).to_pylist()
    assert [(p["winner"], p["loser"], p["winner_cell"], p["loser_cell"]) for p in stored] == [
        ("i1", "i0", [0, 0], [0, 1])
    ]
    assert stored[0]["query"] == "q" and stored[0]["judge"] == "judge@1" and stored[0]["run_id"] == "r"
    assert None not in stored[0].values()
    ranking = pa.Table.from_pylist([ranking_row(row, RUN)], SCHEMAS["rankings"]).to_pylist()[0]
    assert ranking["aesthetic_scores"] == [1.0, 3.0] and None not in ranking.values()


def test_the_runs_name_depends_on_every_value_and_on_no_order():
    assert short_hash({"a": 1, "b": 2}) == short_hash({"b": 2, "a": 1}) != short_hash({"a": 1, "b": 3})
