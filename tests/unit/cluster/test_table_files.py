"""Users' table files: text columns stay text, and an unreadable file is named in the error."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import UserError
from cluster.table_files import query_texts, read_table

YEARS = ["1984", "2024"]
DATES = ["2024-01-01", "2024-02-01"]


def write(folder, kind: str, queries: list) -> str:
    path = folder / f"queries.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"query": queries, "n": range(len(queries))}), path)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps({"query": query, "n": 1}) for query in queries))
    elif kind == "csv":
        path.write_text("\n".join(["query,n", *(f"{query},1" for query in queries)]))
    else:
        path.write_text("\n".join(queries))
    return str(path)


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl", "txt"])
@pytest.mark.parametrize("queries", [YEARS, DATES, ["a cat", "été"], ["007", "a cat"], ["true", "false"]])
def test_queries_stay_text_even_if_they_look_like_numbers_or_dates(tmp_path, kind, queries):
    assert query_texts(write(tmp_path, kind, queries)) == queries


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_numbers_in_a_text_column_become_text(tmp_path, kind):
    path = write(tmp_path, kind, [1984, 2024])
    assert query_texts(path) == YEARS
    assert read_table(path)["n"].type == pa.int64()


def test_csv_keeps_leading_zeros_and_empty_fields(tmp_path):
    assert query_texts(write(tmp_path, "csv", ["007", "08", ""])) == ["007", "08", ""]


def test_image_columns_are_text_or_lists_of_text(tmp_path):
    (tmp_path / "votes.csv").write_text("query,group_a,file_b,votes\n1984,01,2.0,3\n")
    (row,) = read_table(str(tmp_path / "votes.csv")).to_pylist()
    assert row == {"query": "1984", "group_a": "01", "file_b": "2.0", "votes": 3}
    path = tmp_path / "votes.parquet"
    pq.write_table(pa.table({"query": [None], "group_a": [["a", "b"]]}), path)
    assert read_table(str(path)).to_pylist() == [{"query": None, "group_a": ["a", "b"]}]


def test_null_is_an_empty_query(tmp_path):
    path = tmp_path / "q.parquet"
    pq.write_table(pa.table({"query": ["a cat", None]}), path)
    assert query_texts(str(path)) == ["a cat", ""]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("votes.xlsx", b"x", "must end in .parquet, .csv, .jsonl"),
        ("absent.csv", None, "does not exist"),
        ("absent.txt", None, "does not exist"),
        ("votes.parquet", b"not parquet", "not a readable .parquet table"),
        ("votes.csv", b"", "not a readable .csv table"),
        ("latin.csv", "query\nM\u00fcnchen\n".encode("latin-1"), "UTF8"),
        ("latin.txt", "M\u00fcnchen\n".encode("latin-1"), "UTF-8"),
        ("votes.jsonl", b'{"query": 1}\n{"query": "x"}\n', "not a readable .jsonl table"),
        ("votes.jsonl", b'{"text": "x"}\n', "lacks the column(s) query; it has text"),
    ],
)
def test_error_names_the_file_and_the_reason(tmp_path, name, content, reason):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        query_texts(str(path))
    assert reason in str(error.value) and name in str(error.value)
