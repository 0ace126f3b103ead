"""People's votes: tables in three formats, matching of images, weighted agreement with ties."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import UserError
from cluster.schemas import HPIR_COLUMNS
from jobs.evaluate import hpir
from jobs.evaluate.hpir import Row, Votes

RECORDS = [
    {"query": "red boat", "group_a": ["a", "b"], "group_b": ["c"], "votes_accuracy_a": 4,
     "votes_accuracy_b": 1, "votes_aesthetic_a": 0, "votes_aesthetic_b": 5},
    {"query": "a dog", "group_a": ["d"], "group_b": ["a"], "votes_accuracy_a": 2, "votes_accuracy_b": 2,
     "votes_aesthetic_a": 3, "votes_aesthetic_b": 2},
]  # fmt: skip
PAIRS = "query,file_a,file_b,n_prefer_a,n_prefer_b,n_tie\nred boat,images/a.jpg,images/b.jpg,6,2,2\n"


def write(folder, kind, records):
    path = folder / f"votes.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(record) for record in records))
    else:
        cells = [[_csv_cell(value) for value in record.values()] for record in records]
        path.write_text("\n".join(",".join(row) for row in [list(records[0]), *cells]))
    return str(path)


def _csv_cell(value):
    return " ".join(value) if isinstance(value, list) else str(value)


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_all_table_formats_give_the_same_rows(tmp_path, kind):
    rows = hpir.read_hpir(write(tmp_path, kind, RECORDS))
    assert rows == [
        Row("red boat", ("a", "b"), ("c",), {"accuracy": Votes(4, 1), "aesthetic": Votes(0, 5)}),
        Row("a dog", ("d",), ("a",), {"accuracy": Votes(2, 2), "aesthetic": Votes(3, 2)}),
    ]


def test_tie_votes_are_read_if_the_table_has_them(tmp_path):
    records = [{**record, "votes_accuracy_tie": 3, "votes_aesthetic_tie": None} for record in RECORDS]
    (row, _) = hpir.read_hpir(write(tmp_path, "parquet", records))
    assert row.votes == {"accuracy": Votes(4, 1, 3), "aesthetic": Votes(0, 5)}


def test_csv_group_may_be_a_json_list(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text(",".join(HPIR_COLUMNS) + '\nboat,"[""a b"", ""c""]",d,1,2,3,4\n')
    assert hpir.read_hpir(str(path))[0].group_a == ("a b", "c")


@pytest.mark.parametrize("column", HPIR_COLUMNS)
def test_missing_column_is_named(tmp_path, column):
    records = [{key: value for key, value in record.items() if key != column} for record in RECORDS]
    with pytest.raises(UserError, match=rf"lacks the column\(s\) {column};"):
        hpir.read_hpir(write(tmp_path, "parquet", records))


def test_empty_group_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"row 0: group_b = \[\] is not a list of the images"):
        hpir.read_hpir(
            write(
                tmp_path,
                "parquet",
                [{**RECORDS[0], "group_b": pa.scalar([], pa.list_(pa.string())).as_py()}, RECORDS[1]],
            )
        )


@pytest.mark.parametrize(
    ("field", "cell", "reason"),
    [
        ("group_a", [], "is not a list of the images"),
        ("group_a", None, "is not a list of the images"),
        ("group_a", ["a", None], "is not a list of the images"),
        ("group_a", [["a"]], "is not a list of the images"),
        ("group_a", {"a": 1}, "is not a list of the images"),
        ("group_a", "[broken", "Expecting value"),
        ("group_a", "", "is not a list of the images"),
        ("query", ["a"], "is a list, not a text"),
        ("query", "\ud83d", "is not Unicode text"),
        ("votes_accuracy_a", "many", "is not a finite number"),
        ("votes_accuracy_a", float("nan"), "is not a finite number"),
        ("votes_accuracy_a", -1, "is negative"),
        ("votes_accuracy_a", True, "is not a finite number"),
    ],
)
def test_a_cell_that_cannot_be_used_is_named(tmp_path, field, cell, reason):
    path = tmp_path / "votes.jsonl"
    path.write_text("\n".join(json.dumps({**RECORDS[0], **change}) for change in ({}, {field: cell})))
    with pytest.raises(UserError, match=rf"votes.jsonl', line 2: {field} = .*{reason}"):
        hpir.read_hpir(str(path))


def test_names_that_no_file_can_have_match_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    assert hpir.match_images(["a\0b", "x" * 5000, "folder", "/" * 100], {"id": "uri"}, tmp_path) == {}


def test_pair_table_has_votes_on_aesthetics_only(tmp_path):
    (tmp_path / "pairs.csv").write_text(PAIRS)
    assert hpir.read_pairs(str(tmp_path / "pairs.csv")) == [
        Row("red boat", ("images/a.jpg",), ("images/b.jpg",), {"aesthetic": Votes(6, 2, 2)})
    ]
    with pytest.raises(UserError, match="--pairs instead of --hpir"):
        hpir.read_hpir(str(tmp_path / "pairs.csv"))
    (tmp_path / "pairs.csv").write_text(PAIRS.replace("n_prefer_b", "prefer_b"))
    with pytest.raises(UserError, match="n_prefer_b"):
        hpir.read_pairs(str(tmp_path / "pairs.csv"))


def test_images_match_by_id_by_bytes_or_by_end_of_uri(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "copy.jpg").write_bytes(b"pixels")
    (tmp_path / "images" / "stranger.jpg").write_bytes(b"others")
    hashed = hashlib.sha256(b"pixels").hexdigest()
    uris = {
        hashed: "s3://bucket/renamed.jpg",
        "id1": "/photos/images/boat.jpg",
        "id2": "/photos/a/twin.jpg",
        "id3": "/photos/b/twin.jpg",
    }
    names = [
        "id1",
        "images/copy.jpg",
        "images/boat.jpg",
        "oat.jpg",
        "twin.jpg",
        "a/twin.jpg",
        "images/stranger.jpg",
    ]
    assert hpir.match_images(names, uris, tmp_path) == {
        "id1": "id1",
        "images/copy.jpg": hashed,
        "images/boat.jpg": "id1",
        "a/twin.jpg": "id2",
    }


def test_rows_with_an_unknown_image_are_skipped():
    rows = [Row("q", ("x",), ("y",), {}), Row("r", ("x",), ("z",), {})]
    assert hpir.with_image_ids(rows, {"x": "1", "y": "2"}) == [Row("q", ("1",), ("2",), {})]


def test_agreement_with_ties_in_votes_and_in_scores():
    votes = [Votes(4, 1), Votes(1, 4), Votes(2, 2), Votes(4, 1), Votes(6, 2, 2), Votes(0, 0)]
    scores = np.array([[2, 1], [2, 1], [2, 1], [1, 1], [1, 2], [1, 2]], float)
    agrees, confidence = hpir.agreement(scores, votes)
    assert agrees.tolist() == [1, 0, 0.5, 0.5, 0, 0.5]
    assert confidence.tolist() == pytest.approx([0.6, 0.6, 0, 0.6, 0.4, 0])


def test_weighted_agreement_equals_a_naive_loop():
    rng = np.random.default_rng(0)
    votes = [Votes(*rng.integers(0, 4, 3)) for _ in range(101)]
    scores = rng.integers(0, 3, (101, 2)).astype(float)
    hits = total = 0.0
    for vote, (a, b) in zip(votes, scores, strict=True):
        weight = abs(vote.a - vote.b) / max(vote.a + vote.b + vote.tie, 1)
        agree = 0.5 if a == b else float((a > b) == (vote.a > vote.b))
        hits, total = hits + weight * agree, total + weight
    agrees, confidence = hpir.agreement(scores, votes)
    assert agrees @ confidence / confidence.sum() == pytest.approx(hits / total)


def test_group_score_is_the_mean_over_its_images():
    rows = [Row("q", ("a", "b"), ("c",), {})]
    score = {("q", "a"): 1.0, ("q", "b"): 0.0, ("q", "c"): 0.7}
    assert hpir.group_means(rows, score).tolist() == [[0.5, 0.7]]
    assert hpir.group_means([], {}).shape == (0, 2)
