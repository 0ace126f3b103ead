"""Users' tables and texts: words stay words, common encodings are read, a fault is named with its line."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import UserError, exit_on_user_error, shown
from cluster.profile import load_profile
from cluster.table_files import flag, number, query_texts, read_table, text
from cluster.text_files import decode, one_line

YEARS = ["1984", "2024"]
DATES = ["2024-01-01", "2024-02-01"]
WORDS = ["007", "NA", "null", "1e5", "true", "NaN", "-", "1_000", "nil"]


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
@pytest.mark.parametrize("queries", [YEARS, DATES, ["a cat", "été"], WORDS])
def test_queries_stay_text_even_if_they_look_like_numbers_dates_or_null(tmp_path, kind, queries):
    assert query_texts(write(tmp_path, kind, queries)) == queries


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_numbers_in_a_text_column_become_text(tmp_path, kind):
    assert query_texts(write(tmp_path, kind, [1984, 2024])) == YEARS


def test_rows_of_json_lines_may_differ_in_type(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"query": 1}\n\n{"query": "x", "n": [1]}\n{"query": true}\n{"query": null}\n{"n": 2}\n')
    assert query_texts(str(path)) == ["1", "x", "true", "", ""]


def test_csv_keeps_leading_zeros_and_empty_fields(tmp_path):
    assert query_texts(write(tmp_path, "csv", ["007", "08", ""])) == ["007", "08", ""]


def test_columns_are_read_as_they_are_asked_for(tmp_path):
    (tmp_path / "votes.csv").write_text("query,group_a,votes,good\n1984,01,3,TRUE\n2,02,,0\n")
    first, second = read_table(
        str(tmp_path / "votes.csv"),
        {"query": text, "group_a": text},
        {"votes": number, "good": flag, "no": text},
    )
    assert first == {"query": "1984", "group_a": "01", "votes": 3, "good": True}
    assert second == {"query": "2", "group_a": "02", "votes": None, "good": False}


@pytest.mark.parametrize("column", [pa.array(["a cat", None]), pa.array(["a cat", None]).dictionary_encode()])
def test_null_is_an_empty_query(tmp_path, column):
    path = tmp_path / "q.parquet"
    pq.write_table(pa.table({"query": column}), path)
    assert query_texts(str(path)) == ["a cat", ""]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    ("kind", "content"), [("txt", "{}\n"), ("csv", "query,n\n{},1\n"), ("jsonl", '{{"query": "{}"}}')]
)
def test_the_encoding_of_a_text_file_is_detected(tmp_path, encoding, kind, content):
    path = tmp_path / f"q.{kind}"
    path.write_bytes(content.format("München 夕").encode(encoding))
    assert query_texts(str(path)) == ["München 夕"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_with_any_delimiter_long_rows_and_line_breaks_in_quotes(tmp_path, delimiter):
    path = tmp_path / "q.CSV"
    long = "long " * 300_000
    rows = ["query", "n"], ['"two\nlines"', "1"], [f'"{long}, {delimiter} ""x"""', "2"]
    path.write_text("\r\n" + "\r\n\r\n".join(delimiter.join(row) for row in rows))
    assert query_texts(str(path)) == ["two lines", one_line(f'{long}, {delimiter} "x"')]


def test_json_lines_of_many_megabytes_and_with_unusual_separators(tmp_path):
    path = tmp_path / "q.jsonl"
    long = "x" * 3_000_000
    path.write_text(
        "\r\n".join(json.dumps({"query": q}, ensure_ascii=False) for q in (long, "a\u2028b\x85c"))
    )
    assert query_texts(str(path)) == [long, "a b c"]


def test_control_characters_do_not_split_or_enter_queries(tmp_path):
    (tmp_path / "q.txt").write_bytes("a\x0cb\x1ec\u2028d\re\x1b[31m\n".encode())
    assert query_texts(str(tmp_path / "q.txt")) == ["a b c d", "e [31m"]
    (tmp_path / "q.jsonl").write_text('{"query": "a\\u0000b"}')
    assert query_texts(str(tmp_path / "q.jsonl")) == ["a b"]


PARQUET = {
    "a list": {"query": [["a"]]},
    "a struct": {"query": [{"en": "a"}]},
    "bytes": {"query": [b"caf\xe9"]},
    "numbers": {"id": [1]},
}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("votes.xlsx", b"x", "must end in .parquet, .csv, .jsonl"),
        ("absent.csv", None, "does not exist"),
        ("absent.txt", None, "does not exist"),
        ("votes.parquet", b"not parquet", "not a readable .parquet table"),
        ("votes.parquet", b"", "not a readable .parquet table"),
        ("votes.csv", b"", "not a readable .csv table: it is empty"),
        ("votes.csv", b" \n \n", "it lacks the column(s) query"),
        ("votes.jsonl", b"\n", "it is empty"),
        (
            "latin.csv",
            "query\na\nM\u00fcnchen\n".encode("latin-1"),
            "line 3: query = 'M\\udcfcnchen' is not Unicode",
        ),
        ("latin.txt", "a\nM\u00fcnchen\n".encode("latin-1"), "line 2 is not text"),
        ("image.txt", b"\x89PNG\r\n\0\0\0", "line 1 is not text"),
        ("image.csv", b"\x89PNG\r\n\0\0\0", "its header is not text"),
        ("votes.csv", b"query,n\na,1\nb\n", "line 3 has 1 fields, but the header has 2"),
        ("votes.csv", b"query\na boat, at sea\n", "line 2 has 2 fields, but the header has 1"),
        ("votes.csv", b'query,n\n"a,1\nb,2\n', "line 2 is not CSV: unexpected end of data"),
        ("votes.csv", b"query,query\na,b\n", "has the column 'query' more than once"),
        ("votes.jsonl", b'{"query": 1}\n{"query": "x"\n', "line 2 is not JSON"),
        (
            "votes.jsonl",
            b'{"query": "a"}\n{"query": "\\ud83d"}\n',
            "line 2: query = '\\ud83d' is not Unicode",
        ),
        ("votes.jsonl", b'{"query": "a"}\n' + b"[" * 200_000, "line 2 is nested too deep"),
        ("votes.jsonl", b'["a"]\n', "line 1 is not a JSON object"),
        ("votes.jsonl", b'{"query": "a", "query": "b"}\n', "has the column 'query' more than once"),
        ("votes.jsonl", b'{"query": ["a"]}\n', "line 1: query = ['a'] is a list, not a text"),
        ("votes.jsonl", b'{"text": "x"}\n', "lacks the column(s) query; it has text"),
        ("list.parquet", PARQUET["a list"], "row 0: query = ['a'] is a list, not a text"),
        ("struct.parquet", PARQUET["a struct"], "is a struct, not a text"),
        ("bytes.parquet", PARQUET["bytes"], "is not Unicode text"),
        ("lacks.parquet", PARQUET["numbers"], "lacks the column(s) query; it has id"),
    ],
)
def test_error_names_the_file_and_the_reason(tmp_path, name, content, reason):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        pq.write_table(pa.table(content), path)
    with pytest.raises(UserError) as error:
        query_texts(str(path))
    message = str(error.value)
    assert reason.replace("it lacks", "lacks") in message and name in message
    assert "\n" not in message and len(message) < 600


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "q.parquet"
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["query", "query"]), path)
    with pytest.raises(UserError, match="'query' more than once"):
        query_texts(str(path))


@pytest.mark.parametrize("ending", ["txt", "csv", "parquet"])
def test_a_folder_a_fifo_and_a_broken_path_are_refused(tmp_path, ending):
    (tmp_path / f"folder.{ending}").mkdir()
    os.mkfifo(tmp_path / f"fifo.{ending}")
    for name, reason in (
        ("folder", "a folder"),
        ("fifo", "a FIFO"),
        ("x" * 5000, "too long"),
        ("a\0b", "null"),
    ):
        with pytest.raises(UserError, match=reason):
            query_texts(f"{tmp_path}/{name}.{ending}")


@pytest.mark.parametrize("cell", [float("nan"), "abc", "inf", True, 10**400, [1], "1,5"])
def test_numbers_that_are_not_finite_are_refused(cell):
    with pytest.raises(ValueError, match="finite number"):
        number(cell)


def test_the_cell_of_100_000_letters_is_not_shown_whole(tmp_path):
    (tmp_path / "q.csv").write_text("rating\n" + "x" * 100_000)
    with pytest.raises(UserError, match=r"\(100,002 characters\) is not a finite number") as error:
        read_table(str(tmp_path / "q.csv"), {"rating": number})
    assert len(str(error.value)) < 600
    assert shown("short") == "'short'"


def test_a_sentence_with_a_huge_value_is_printed_without_its_middle(capsys):
    with pytest.raises(SystemExit) as ended, exit_on_user_error():
        raise UserError(f"there is no encoder {'x' * 100_000}: choose another")
    assert ended.value.code == 2
    sentence = capsys.readouterr().err
    assert len(sentence) < 2100
    assert sentence.startswith("error: there is no encoder x") and sentence.endswith("choose another\n")


def test_a_profile_with_a_name_of_100_000_letters_is_refused():
    with pytest.raises(UserError, match=r"no profile '/?x+'?\.\.\. \(100,002 characters\): give one of"):
        load_profile("x" * 100_000)


def test_bytes_in_no_encoding_are_marked_not_replaced():
    assert decode(b"a\xff") == "a\udcff"
    assert decode(b"\xff\xfea\0b") == "\udcff\udcfea\0b"  # UTF-16 that ends within a letter
