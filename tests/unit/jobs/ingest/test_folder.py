"""Folders of image files: what is read, rejected, ignored, and named in the report."""

import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pytest
from hostile_files import (
    STRANGE_NAMES,
    not_pictures,
    outcomes,
    photo,
    pictures_without_reader,
    read_source,
    write_special_files,
    write_tar,
)
from pictures import write_photos
from pyarrow import fs, parquet

from actors import images
from actors.images import UnusableImage
from cluster.errors import UserError
from cluster.profile import Stage
from jobs.ingest.config import IngestConfig
from jobs.ingest.sources import listing
from jobs.ingest.sources.listing import Location, hidden_by, list_files, locate
from jobs.ingest.sources.opening import open_source as open_checked

DECODE = Stage(batch_size=4)


def open_source(source, **options):
    return open_checked(IngestConfig(source=str(source), **options), DECODE)


def test_a_missing_source_is_explained(tmp_path):
    with pytest.raises(UserError, match="'/nowhere/at/all' does not exist; give a folder"):
        open_source("/nowhere/at/all")
    with pytest.raises(UserError, match="cannot be reached"):
        open_source("nosuchscheme://bucket/x")


def test_a_folder_without_images_is_explained(tmp_path):
    (tmp_path / "notes.md").write_text("no images")
    with pytest.raises(UserError, match=f"'{tmp_path}' has no images"):
        open_source(tmp_path)
    with pytest.raises(UserError, match="has no tars; choose another --kind"):
        open_source(tmp_path, kind="webdataset")


def test_a_source_in_which_nothing_can_be_read_is_explained_by_its_first_reason(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "photos").symlink_to(tmp_path / "real")
    with pytest.raises(UserError, match=r"has no images.*source/photos' cannot be read: a link to a folder"):
        open_source(tmp_path / "source")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UserError, match="fifo' is neither a file nor a folder"):
        open_source(tmp_path / "fifo")


def test_a_path_and_its_uri_open_the_same_folder(tmp_path):
    write_photos(tmp_path / "deep" / "er", 3)
    by_path, by_uri = open_source(tmp_path), open_source(f"file://{tmp_path}")
    assert by_path.kind == by_uri.kind == "folder" and by_path.num_inputs == 3
    assert by_path.label == tmp_path.name and open_source(tmp_path, label="mine").label == "mine"
    assert outcomes(tmp_path) == {f"deep/er/photo_{index:04d}.jpg": "" for index in range(3)}
    (_, rows), (_, rows_by_uri) = read_source(tmp_path), read_source(f"file://{tmp_path}")  # type: ignore
    assert rows == rows_by_uri


def test_file_names_that_are_not_utf8_are_rejected_without_failing_the_job(tmp_path):
    write_photos(tmp_path, 1)
    for name in (b"bad_\xff.jpg", b"bad_\xff.dat", b"bad_\xff"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(photo())
    with pytest.raises(UserError, match=r"source '/x\\udcff' cannot be reached"):
        open_source("/x\udcff")
    found = outcomes(tmp_path)
    assert found.pop("photo_0000.jpg") == ""
    assert found.pop("bad_\\xff.jpg") == "the file's name is not UTF-8"
    assert set(found) == {"bad_\\xff.dat", "bad_\\xff"} and all("content of a" in x for x in found.values())


def test_files_beside_and_below_names_that_are_not_utf8_are_read_or_rejected(tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), b"f\xff")
    os.makedirs(folder + b"/.hidden\xff")
    write_photos(tmp_path, 1)
    table = b"file_name,caption\na.jpg,a boat\nb.jpg,\xff\nlost.jpg,\xff\n"
    for name, data in {
        b"a.jpg": photo(1),
        b"b.jpg": photo(2),
        b"metadata.csv": table,
        b".hidden\xff/a": b"",
    }.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)
    found = outcomes(tmp_path)
    assert found.pop("photo_0000.jpg") == "" and "not Unicode" in found.pop("f\\xff/metadata.csv, line 4")
    assert found == dict.fromkeys(("f\\xff/a.jpg", "f\\xff/b.jpg"), "the file's name is not UTF-8")
    opened = open_source(tmp_path)
    assert opened.ignored == {".hidden\\xff/": 1}
    assert opened.report["metadata"]["tables"] == [f"{tmp_path}/f\\xff/metadata.csv"]


def test_each_strange_name_is_read_as_itself(tmp_path):
    for index, name in enumerate(STRANGE_NAMES):
        (tmp_path / name).write_bytes(photo(index))
    (tmp_path / "newline.jpg").write_bytes(photo(999))
    _, rows = read_source(tmp_path)
    data_of = {row.uri.removeprefix(f"{tmp_path}/"): row.data for row in rows}
    assert data_of == {name: photo(i) for i, name in enumerate(STRANGE_NAMES)} | {"newline.jpg": photo(999)}
    assert all(images.read_uri(row.uri) == row.data for row in rows)


@pytest.mark.parametrize("key", [*STRANGE_NAMES, "été/☀.jpg"])
def test_the_address_of_a_strange_key_of_an_object_store_names_that_key(key):
    location = Location(fs.LocalFileSystem(), "bucket", "file:///", is_file=False)
    _, path = fs.FileSystem.from_uri(location.uri(f"bucket/{key}"))
    assert path == f"/bucket/{key}"


def test_special_files_links_and_linked_folders_are_rejected_by_name(tmp_path):
    folder = tmp_path / "photos"
    write_photos(folder, 1)
    reasons = write_special_files(folder)
    found = outcomes(folder)
    assert found.pop("photo_0000.jpg") == ""
    assert set(found) == set(reasons)
    for name, reason in reasons.items():
        assert re.search(reason, found[name]), (name, found[name])


@pytest.mark.parametrize("replace", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_a_file_that_is_replaced_after_the_listing_is_rejected_without_a_hang(tmp_path, replace):
    names = write_photos(tmp_path, 2)
    (tmp_path / "photo_0001.txt").write_text("a boat")
    opened = open_source(tmp_path)
    for name in (names[0], "photo_0001.txt"):
        (tmp_path / name).unlink()
        replace(tmp_path / name)
    rows = []

    def read():
        reader = read_source_again(opened)
        rows.extend(row for table in reader.read_all() for row in opened.rows(table))

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    reading.join(timeout=20)
    assert len(rows) == 2 and all("cannot be opened: it is a" in row.error for row in rows)


def read_source_again(opened):
    """The reader of an opened source."""
    from unittest import mock

    with mock.patch("ray.data.read_datasource", lambda reader, **_: reader):
        return opened.dataset()


def test_an_address_that_is_not_a_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for address, reason in (
        (f"{tmp_path}/fifo", "a FIFO"),
        (f"file://{tmp_path}/fifo", "a FIFO"),
        ("/dev/zero", "a device"),
        (str(tmp_path), "a folder"),
        ("x\0y", "null byte"),
        ("a" * 5000, "too long"),
    ):
        with pytest.raises(UnusableImage, match=f"cannot be opened: .*{reason}"):
            images.read_uri(address)


def test_an_address_whose_filesystem_raises_anything_is_refused(monkeypatch):
    from_uri = mock.Mock(side_effect=KeyError("no such host"))
    for module in (images, listing):
        monkeypatch.setattr(module, "fs", mock.Mock(FileSystem=mock.Mock(from_uri=from_uri)))
    with pytest.raises(UnusableImage, match="cannot be opened: 'no such host'"):
        images.read_uri("hf://datasets/a/b.jpg")
    with pytest.raises(UserError, match="'hf://datasets/a' cannot be reached: 'no such host'"):
        open_source("hf://datasets/a")


def test_a_file_that_grows_beyond_the_limit_is_rejected(tmp_path, monkeypatch):
    names = write_photos(tmp_path, 2)
    monkeypatch.setattr("jobs.ingest.sources.listing.MAX_FILE_BYTES", 10)
    assert set(outcomes(tmp_path).values()) == {"the file has more than the allowed 536,870,912 bytes"}
    with open(tmp_path / names[0], "r+b") as file:
        file.truncate((1 << 29) + 1)
    with pytest.raises(UnusableImage, match="more than the allowed 536,870,912 bytes"):
        images.read_uri(str(tmp_path / names[0]))


def test_pictures_in_other_formats_and_without_an_extension_are_rejected_and_the_rest_is_counted(tmp_path):
    write_photos(tmp_path, 1)
    for name, (data, _) in pictures_without_reader().items():
        (tmp_path / name).write_bytes(data)
    for name, data in not_pictures().items():
        (tmp_path / name).write_bytes(data)
    found = outcomes(tmp_path)
    assert found.pop("photo_0000.jpg") == ""
    assert {name for name, outcome in found.items() if outcome == "ignored"} == set(not_pictures())
    for name, (_, reason) in pictures_without_reader().items():
        assert re.search(reason, found[name]), (name, found[name])
    assert open_source(tmp_path).num_files == len(found) + 1


def test_a_folder_of_pictures_that_cannot_be_read_is_a_folder(tmp_path):
    (tmp_path / "a.dng").write_bytes(b"II*\0")
    assert open_source(tmp_path).kind == "folder" and "format .dng" in outcomes(tmp_path)["a.dng"]


def test_paths_longer_than_the_system_allows_and_deep_folders_are_rejected(tmp_path):
    write_photos(tmp_path, 1)
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(1100):  # deeper than Python's own recursion limit
            os.mkdir("d")
            os.chdir("d")
        Path("deep.jpg").write_bytes(photo(1))
        for _ in range(20):
            os.mkdir("e" * 200)
            os.chdir("e" * 200)
            Path("long.jpg").write_bytes(photo(2))
    finally:
        os.chdir(here)
    found = outcomes(tmp_path)
    assert found[f"{'d/' * 1100}deep.jpg"] == "" and found["photo_0000.jpg"] == ""
    reasons = [reason for reason in found.values() if reason]
    assert reasons and all("File name too long" in reason for reason in reasons)
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # pytest's own removal recurses


def test_folders_that_cannot_be_entered_and_files_that_cannot_be_opened_are_rejected(open_folder):
    write_photos(open_folder / "closed", 1)
    write_photos(open_folder / "open", 2)
    (open_folder / "closed").chmod(0)
    (open_folder / "open" / "photo_0001.jpg").chmod(0)
    lines = f"import os, sys; sys.path[:0] = {sys.path!r}\n" + PERMISSIONS
    if os.geteuid() == 0:
        lines = lines.replace("# drop", "os.setgid(65534); os.setuid(65534)")
    command = [sys.executable, "-c", lines, open_folder]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    (open_folder / "closed").chmod(0o755)
    assert run.returncode == 0, run.stderr
    closed, readable, unreadable = run.stdout.splitlines()
    assert closed == "closed: the folder cannot be entered: Permission denied"
    assert readable == "open/photo_0000.jpg: "
    assert unreadable.startswith("open/photo_0001.jpg: cannot be opened: [Errno 13] Permission denied")


@pytest.fixture
def open_folder():
    """A temporary folder that every user may enter: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


PERMISSIONS = """
from pathlib import Path
from hostile_files import outcomes
# drop
for name, outcome in sorted(outcomes(Path(sys.argv[1])).items()):
    print(f"{name}: {outcome}")
"""


def test_hidden_files_thumbnails_and_deleted_files_are_counted_and_read_on_request(tmp_path):
    write_photos(tmp_path / "album", 2)
    for folder in (
        "@eaDir",
        ".thumbnails",
        ".Trash-1000/files",
        "$RECYCLE.BIN",
        "__MACOSX",
        ".git",
        "#recycle",
    ):
        write_photos(tmp_path / "album" / folder, 2, seed=hash(folder) % 1000)
    (tmp_path / "album" / "._photo_0000.jpg").write_bytes(b"\0\5\x16\7")
    opened = open_source(tmp_path)
    assert set(outcomes(tmp_path)) == {"album/photo_0000.jpg", "album/photo_0001.jpg"}
    assert opened.ignored == {
        "@eaDir/": 2, ".thumbnails/": 2, ".Trash-1000/": 2, "$RECYCLE.BIN/": 2, "__MACOSX/": 2, ".git/": 2,
        "#recycle/": 2, ".*": 1,
    }  # fmt: skip
    assert opened.num_files == 2 + 15
    assert len(outcomes(tmp_path, include_hidden=True)) == 17
    assert outcomes(tmp_path / "album" / ".git") == {"photo_0000.jpg": "", "photo_0001.jpg": ""}


@pytest.mark.parametrize(
    ("path", "hidden"),
    [("a/b.jpg", ""), ("./a.jpg", ""), ("../a.jpg", ""), ("a/.b.jpg", ".*"), ("._b.jpg", ".*"),
     (".x/a.jpg", ".x/"), ("a/@EADIR/b.jpg", "@EADIR/"), ("trash/a.jpg", ""), ("thumbnails/a.jpg", ""),
     ("Recycled/a.jpg", "Recycled/"), ("Network Trash Folder/a.jpg", "Network Trash Folder/")],
)  # fmt: skip
def test_what_hides_a_file(path, hidden):
    assert hidden_by(path) == hidden


def test_text_and_json_files_beside_an_image_are_its_words(tmp_path):
    names = write_photos(tmp_path, 9)
    for name, data in {
        "photo_0000.txt": "\ufeffa boat\n".encode(),
        "photo_0001.txt": "thé".encode("utf-16"),
        "photo_0002.json": b'{"caption": "a tree", "split": "train"}',
        "photo_0003.txt": b"from text",
        "photo_0003.json": b'{"caption": null, "split": "test"}',
        "photo_0004.jpg.json": b'{"caption": "takeout"}',
        "photo_0005.txt": b"caf\xe9",
        "photo_0006.json": b"[" * 100_000,
        "photo_0007.json": b'{"caption": "\\ud83d"}',
        "photo_0008.json": b"null",
        "other.txt": b"of no picture",
    }.items():
        (tmp_path / name).write_bytes(data)
    found = outcomes(tmp_path)
    captions = ["a boat", "thé", "a tree", "from text", "takeout"]
    assert [found[name] for name in names[:5]] == captions
    for name, reason in ((names[5], "not text in UTF-8"), (names[6], "recursion"), (names[7], "not Unicode")):
        assert reason in found[name], found[name]
    assert found[names[8]] == "" and found["other.txt"] == "ignored"
    opened, rows = read_source(tmp_path)
    assert (opened.num_files, opened.num_inputs, opened.num_word_files) == (20, 9, 10)
    assert [row.text.tags for row in rows if row.text.tags] == [("split:train",), ("split:test",)]


def test_words_beside_an_image_may_be_named_in_another_form(tmp_path):
    names = ["a.JPG", "e\u0301.jpg", "B.jpg", "b.jpg", "c.jpg.jpg", "c.jpg"]
    for seed, name in enumerate(names):
        (tmp_path / name).write_bytes(photo(seed))
    for name in ("A.txt", "\u00e9.txt", "b.txt", "c.jpg.txt", "c.txt"):
        (tmp_path / name).write_text(f"words of {name}")
    found = outcomes(tmp_path)
    words = ["A.txt", "\u00e9.txt", "", "b.txt", "c.jpg.txt", "c.txt"]
    assert [found[name] for name in names] == [word and f"words of {word}" for word in words]
    assert len(found) == len(names)


def test_the_metadata_table_replaces_the_words_beside_an_image(tmp_path):
    names = write_photos(tmp_path, 2)
    (tmp_path / "metadata.csv").write_text(f"file_name,caption\n{names[0]},from the table\n{names[1]},\n")
    for name in names:
        (tmp_path / name).with_suffix(".txt").write_text("from the text")
    assert outcomes(tmp_path) == {names[0]: "from the table", names[1]: "from the text"}
    assert open_source(tmp_path).num_word_files == 3


def test_the_kind_of_a_dataset_with_a_few_pictures_is_not_folder(tmp_path, capsys):
    table = pa.table({"bytes": [photo(index) for index in range(20)]})
    parquet.write_table(table, tmp_path / "train.parquet")
    (tmp_path / "thumbnail.png").write_bytes(photo(99))
    (tmp_path / "README.md").write_text("a dataset")
    opened = open_source(tmp_path)
    assert (opened.kind, opened.num_inputs, opened.num_files) == ("parquet", 20, 3)
    assert opened.ignored == {"*.png": 1, "*.md": 1}
    assert "is read as parquet, files: 1; left out: 1 of folder (--kind chooses)" in capsys.readouterr().err
    assert open_source(tmp_path, kind="folder").kind == "folder" and capsys.readouterr().err == ""
    write_tar(tmp_path / "0.tar", [(f"{index}.jpg", photo(index)) for index in range(20)])
    assert open_source(tmp_path).kind == "webdataset"
    assert "left out: 1 of folder, 1 of parquet" in capsys.readouterr().err
    write_photos(tmp_path, 21)
    assert open_source(tmp_path).kind == "folder"


def test_images_with_words_beside_them_are_a_folder_also_beside_large_tables(tmp_path):
    for name in write_photos(tmp_path / "00000", 2):
        (tmp_path / "00000" / name).with_suffix(".json").write_text('{"caption": "a boat"}')
    parquet.write_table(
        pa.table({"url": ["http://x"], "bytes": [os.urandom(99_999)]}), tmp_path / "00000.parquet"
    )
    assert open_source(tmp_path).kind == "folder"


def test_a_listing_is_sorted_and_has_no_folders(tmp_path):
    write_photos(tmp_path / "b", 1)
    write_photos(tmp_path / "a.jpg", 1)
    paths = [path for path, _ in list_files(locate(str(tmp_path))).files]
    assert paths == [f"{tmp_path}/a.jpg/photo_0000.jpg", f"{tmp_path}/b/photo_0000.jpg"]
