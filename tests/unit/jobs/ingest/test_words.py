"""Captions and tags: rows of any types, and metadata tables joined by file name."""

import datetime
import json
import unicodedata

import pyarrow as pa
import pytest
from pictures import write_photos
from pyarrow import parquet

from cluster.errors import UserError
from cluster.profile import Stage
from jobs.ingest.config import IngestConfig
from jobs.ingest.sources import listing
from jobs.ingest.sources.image_text import ImageText, TextColumns, read_text
from jobs.ingest.sources.metadata import Metadata, folder_metadata, match_paths
from jobs.ingest.sources.opening import open_source as open_checked

DECODE = Stage(batch_size=4)


def open_source(source, **options):
    return open_checked(IngestConfig(source=str(source), **options), DECODE)


def nested(value, levels: int = 900):
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"caption": " a\ncat "}, ImageText("a cat")),
        ({"captions": ["first", "longest of all", "short"]}, ImageText("first", "longest of all")),
        ({"captions": ["only"]}, ImageText("only")),
        ({"captions": "a boat"}, ImageText("a boat")),
        ({"caption": "a", "detailed_caption": "b", "captions": ["c", "d"]}, ImageText("a", "b")),
        ({"caption": "a", "captions": ["a", "long one"]}, ImageText("a", "long one")),
        ({"caption": ["first", "longest of all", "short"]}, ImageText("first", "longest of all")),
        ({"caption": [], "captions": [None, "", " ", "b"]}, ImageText("b")),
        ({"caption": b"caf\xc3\xa9", "tags": b"x,y"}, ImageText("café", tags=("x", "y"))),
        ({"caption": {"en": "boat", "de": "Boot"}}, ImageText("boat")),
        ({"caption": {"fr": None, "de": "Boot"}}, ImageText("Boot")),
        ({"captions": [{"tokens": ["a"], "raw": "a b", "id": 3}, {"raw": "c"}]}, ImageText("a b", "c")),
        ({"captions": {"id": 3, "caption": "a boat"}}, ImageText("a boat")),
        ({"captions": [["a"], [["b c"]]]}, ImageText("a", "b c")),
        ({"captions": nested("a"), "tags": nested("a"), "caption": {"raw": nested("a")}}, ImageText()),
        ({"captions": True, "caption": False, "detailed_caption": [True], "tags": True}, ImageText()),
        ({"captions": 7, "tags": 5}, ImageText("7", tags=("5",))),
        ({"caption": {}, "captions": [{}], "tags": {}}, ImageText()),
        ({"tags": ["x", None, "x", " y "], "split": "train"}, ImageText(tags=("x", "y", "split:train"))),
        ({"tags": [{"name": "cat", "score": 0.5}, ["d,e"]]}, ImageText(tags=("cat", "d,e"))),
        ({"tags": "x, y,,", "caption": float("nan")}, ImageText(tags=("x", "y"))),
        ({"split": True, "tags": [1, 2.5]}, ImageText(tags=("1", "2.5", "split:true"))),
        ({"split": ["a", "b"]}, ImageText(tags=("split:a", "split:b"))),
        ({"caption": None, "split": None}, ImageText()),
        ({"caption": datetime.date(2020, 1, 1)}, ImageText("2020-01-01")),
        ({"caption": "a\0b\x1b[31mc\u2028d\ufeff"}, ImageText("a b [31mc d")),
        ({"caption": "x" * 1_000_000}, ImageText("x" * 1_000_000)),
        ({"caption": "夕焼け 🌇 \U000e0067"}, ImageText("夕焼け 🌇 \U000e0067")),
    ],
)
def test_words_of_any_type_become_text_or_nothing(row, expected):
    assert read_text(row, TextColumns()) == expected


@pytest.mark.parametrize(
    "row", [{"caption": "\ud83d"}, {"tags": ["a", "\ude00b"]}, {"captions": [b"caf\xe9"]}]
)
def test_words_that_are_not_unicode_give_a_reason_instead(row):
    text = read_text(row, TextColumns())
    assert "not Unicode" in text.error and text == ImageText(error=text.error)


def folder_of(tmp_path, *names: str) -> listing.Location:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return listing.locate(str(tmp_path))


def read(location: listing.Location, **options) -> Metadata:
    """The metadata of a folder as the job reads it; the images are the files that are no tables."""
    paths = [path for path, _ in listing.list_files(location, False).files]
    tables = [path for path in paths if path.rpartition("/")[2] in listing.METADATA_NAMES]
    images = [path for path in paths if path not in tables]
    config = IngestConfig(source=location.path, **options)
    return folder_metadata(config, location, tables, images, worded=())


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("key", ["file_name", "file"])
def test_metadata_tables_are_joined_by_file_name(tmp_path, form, key):
    location = folder_of(tmp_path, "a/b.jpg", "é.jpg", "other.jpg")
    rows = [{key: "a/b.jpg", "caption": "a boat", "split": "train"}, {key: "./é.jpg", "caption": "tea"}]
    rows = [{"split": "", **row} for row in rows]
    path = tmp_path / f"metadata.{form}"
    if form == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif form == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        head = ",".join(rows[0])
        path.write_text("\n".join([head] + [",".join(row[name] for name in rows[0]) for row in rows]))
    metadata = read(location)
    assert metadata.text_of(f"{tmp_path}/a/b.jpg") == ImageText("a boat", "", ("split:train",))
    assert metadata.text_of(f"{tmp_path}/é.jpg") == ImageText("tea")
    assert metadata.text_of(f"{tmp_path}/other.jpg") == ImageText()
    assert metadata.report["metadata"] == {
        "tables": [str(path)],
        "num_rows": 2,
        "num_rows_without_image": 0,
        "rows_without_image": [],
        "num_images_without_words": 1,
        "images_without_words": ["other.jpg"],
    }


def test_captions_of_a_csv_stay_text(tmp_path):
    words = ["007", "NA", "null", "1e5", "true", "2020-01-01", "NaN", "-0", "1_000"]
    location = folder_of(tmp_path, *words)
    lines = [f'"{word}";{word};"{word}, {word}"' for word in words]
    (tmp_path / "metadata.csv").write_bytes(
        "\r\n\r\n".join(["file_name;caption;tags", *lines]).encode("utf-16")
    )
    metadata = read(location)
    assert [metadata.text_of(f"{tmp_path}/{word}") for word in words] == [
        ImageText(word, "", (word,)) for word in words
    ]


def test_a_byte_that_is_not_utf_8_costs_only_its_row(tmp_path):
    location = folder_of(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    table = "file_name,caption,by\na.jpg,a boat,Müller\nb.jpg,a cafe,x\nc.jpg,a café,x\n"
    (tmp_path / "metadata.csv").write_bytes(table.encode("latin-1"))
    metadata = read(location)
    texts = [metadata.text_of(f"{tmp_path}/{name}.jpg") for name in "abc"]
    assert [text.caption for text in texts] == ["a boat", "a cafe", ""]
    assert texts[2].error.startswith(f"{tmp_path}/metadata.csv, line 4: its caption or a tag is not Unicode")


def test_broken_rows_are_rejects_of_their_images_or_of_themselves(tmp_path):
    location = folder_of(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    lines = [
        {"file_name": "a.jpg", "caption": 7, "captions": [True]},
        '{"file_name": "b.jpg", "caption": "\\ud83d"}',
        "[" * 100_000,
        '{"file_name": "c.jpg", "caption": "x", "caption": "y"}',
        '{"file_name": "\\udfff"}',
    ]
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (tmp_path / "metadata.jsonl").write_text(text)
    metadata = read(location)
    assert metadata.text_of(f"{tmp_path}/a.jpg") == ImageText("7", "")
    assert "line 2: its caption" in metadata.text_of(f"{tmp_path}/b.jpg").error
    assert "more than once, with different" in metadata.text_of(f"{tmp_path}/c.jpg").error
    assert [place.rpartition(", ")[2] for place, _ in metadata.rejects] == ["line 3", "line 5"]
    assert "nested too deep" in metadata.rejects[0][1]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_column_that_is_there_twice_costs_the_rows_in_which_it_contradicts_itself(tmp_path, form):
    location = folder_of(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    columns = ["file_name", "caption", "id", "caption", "id"]
    rows = [
        ["a.jpg", "a boat", "1", "a cat", "2"],
        ["b.jpg", "same", "1", "same", "2"],
        ["c.jpg", "", "1", "x", "2"],
    ]
    path = tmp_path / f"metadata.{form}"
    if form == "csv":
        path.write_text("\n".join(",".join(row) for row in [columns, *rows]))
    elif form == "jsonl":
        cells = (zip(map(json.dumps, columns), map(json.dumps, row), strict=True) for row in rows)
        path.write_text("\n".join("{" + ",".join(map(":".join, row)) + "}" for row in cells))
    else:
        parquet.write_table(
            pa.Table.from_arrays([pa.array(cells) for cells in zip(*rows, strict=True)], columns), path
        )
    metadata = read(location)
    texts = [metadata.text_of(f"{tmp_path}/{name}.jpg") for name in "abc"]
    assert "has the column 'caption' more than once, with different values" in texts[0].error
    assert texts[1:] == [ImageText("same"), ImageText("x")] and not metadata.rejects


def test_a_quotation_mark_that_is_never_closed_costs_only_its_row(tmp_path):
    location = folder_of(tmp_path, *(f"{name}.jpg" for name in "abcdef"))
    rows = [
        'a.jpg,"open',
        'b.jpg,"two\nlines"',
        'c.jpg,"he said "hi" twice"',
        'd.jpg,5" disk',
        'e.jpg,"open',
        "f.jpg,x",
    ]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,caption", *rows]))
    metadata = read(location)
    texts = {name: metadata.text_of(f"{tmp_path}/{name}.jpg") for name in "abcdef"}
    assert {name: text.caption for name, text in texts.items() if not text.error} == {
        "b": "two lines",
        "d": '5" disk',
        "f": "x",
    }
    lines = [
        (name, text.error.partition("metadata.csv, ")[2].partition(" is not CSV")[0])
        for name, text in texts.items()
        if text.error
    ]
    assert lines == [("a", "line 2:"), ("c", "line 5:"), ("e", "line 7:")] and not metadata.rejects


def test_the_name_of_another_column_may_be_in_any_encoding(tmp_path):
    location = folder_of(tmp_path, "a.jpg")
    (tmp_path / "metadata.csv").write_bytes(b"file_name,caption,gr\xf6\xdfe\na.jpg,a boat,1\n")
    assert read(location).text_of(f"{tmp_path}/a.jpg") == ImageText("a boat")


def test_a_row_with_missing_fields_rejects_its_image(tmp_path):
    location = folder_of(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "metadata.csv").write_text("file_name,caption,tags\na.jpg,a boat\nb.jpg,x,y\n,,\n")
    metadata = read(location)
    assert metadata.text_of(f"{tmp_path}/a.jpg").error.endswith("line 2: has 2 fields, but the header has 3")
    assert metadata.text_of(f"{tmp_path}/b.jpg") == ImageText("x", "", ("y",))
    assert (metadata.rejects, metadata.report["metadata"]["num_rows"]) == ([], 2)


def test_rows_that_contradict_each_other_reject_their_image(tmp_path):
    location = folder_of(tmp_path, "a.jpg", "b.jpg")
    table = "file_name,caption\na.jpg,a boat\nb.jpg,same\na.jpg,a cat\n./b.jpg,same\n"
    (tmp_path / "metadata.csv").write_text(table)
    metadata = read(location)
    place = f"{tmp_path}/metadata.csv, line"
    error = f"{place} 2 and {place} 4 give it different words"
    assert metadata.text_of(f"{tmp_path}/a.jpg") == ImageText(error=error)
    assert metadata.text_of(f"{tmp_path}/b.jpg") == ImageText("same")


def test_the_table_of_each_folder_is_read_and_its_names_are_relative_to_it(tmp_path):
    location = folder_of(tmp_path, "train/a.jpg", "test/a.jpg", "test/deep/b.jpg", "c.jpg")
    (tmp_path / "train/metadata.csv").write_text("file_name,caption\na.jpg,train\n")
    (tmp_path / "test/metadata.jsonl").write_text(
        '{"file_name": "a.jpg", "caption": "test"}\n{"file_name": "deep/b.jpg", "caption": "deep"}\n'
    )
    (tmp_path / "metadata.csv").write_text("file_name,caption\nc.jpg,root\nno.jpg,x\n")
    metadata = read(location)
    names = ("train/a.jpg", "test/a.jpg", "test/deep/b.jpg", "c.jpg")
    captions = [metadata.text_of(f"{tmp_path}/{name}").caption for name in names]
    assert captions == ["train", "test", "deep", "root"]
    report = metadata.report["metadata"]
    assert (len(report["tables"]), report["rows_without_image"]) == (3, ["no.jpg"])


def test_names_are_matched_in_their_forms_and_never_guessed(tmp_path):
    nfd = unicodedata.normalize("NFD", "é.jpg")
    images = [
        "/r/a/B.jpg",
        f"/r/{nfd}",
        "/r/c.jpg",
        "/r/x.JPG",
        "/r/X.jpg",
        "/r/y.JPG",
        "/r/Y.jpg",
        "/r/d\\e.jpg",
        "/r/d/e.jpg",
        "/r/only.jpg",
    ]
    pairs = {
        "/r/a\\B.jpg": "/r/a/B.jpg",
        "/r/é.jpg": f"/r/{nfd}",
        "/r/C.JPG": "/r/c.jpg",
        "/r/x.jpg": "",  # x.JPG or X.jpg
        "/r/x.JPG": "/r/x.JPG",
        "/r/d\\e.jpg": "/r/d\\e.jpg",
        "/r/only.jpg": "/r/only.jpg",
        "/r/Only.jpg": "",  # the exact name has its own row
        "/r/none.jpg": "",
        "/r/y.jpg": "",  # y.JPG or Y.jpg
        "": "",
    }
    assert match_paths(list(pairs), images) == list(pairs.values())


def test_absolute_names_and_uris_are_matched(tmp_path):
    location = folder_of(tmp_path, "a b.jpg", "c.jpg", "d.jpg")
    table = tmp_path.parent / f"{tmp_path.name}.csv"
    names = [f"file://{tmp_path}/a%20b.jpg", f"{tmp_path}/c.jpg", f"../{tmp_path.name}/d.jpg"]
    table.write_text("\ufefffile_name, caption\n" + "\n".join(f"{name}, {n}" for n, name in enumerate(names)))
    metadata = read(location, metadata=str(table))
    captions = [metadata.text_of(f"{tmp_path}/{name}").caption for name in ("a b.jpg", "c.jpg", "d.jpg")]
    assert captions == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "name,caption\na,b\n", "no column 'file_name' or 'file'; it has name, caption"),
        ("metadata.csv", "", "it is empty"),
        ("metadata.csv", '"file_name,caption\na,b\n', "line 1 is not CSV: unexpected end of data"),
        ("metadata.jsonl", "{not json", "cannot be read"),
        ("metadata.parquet", "not parquet", "cannot be read"),
    ],
)
def test_a_bad_metadata_table_is_explained(tmp_path, name, content, message):
    write_photos(tmp_path, 1)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        open_source(tmp_path)


def test_a_metadata_option_that_names_no_table_is_explained(tmp_path):
    write_photos(tmp_path, 1)
    for name, message in (
        (".", "is a folder"),
        ("no.csv", "does not exist"),
        ("photo_0000.jpg", "unknown format"),
    ):
        with pytest.raises(UserError, match=message):
            open_source(tmp_path, metadata=f"{tmp_path}/{name}")
