"""Faults of the place where a store lies: one sentence with the table and the way out; nothing is lost."""

import os
import struct
import subprocess
from pathlib import Path

import lancedb
import pyarrow as pa
import pytest

from cluster.compat.errors import is_commit_conflict, storage_fault
from cluster.errors import UserError
from cluster.tables import SCHEMAS, Store, embeddings_table, now


def rejects(uris) -> pa.Table:
    rows = [{"uri": uri, "stage": "read", "error": "broken", "at": now()} for uri in uris]
    return pa.Table.from_pylist(rows, SCHEMAS["rejects"])


@pytest.fixture
def table(store) -> Path:
    """The folder of table `rejects` with the rows a and b."""
    store.merge("rejects", rejects(["a"]), on=["uri"])
    store.merge("rejects", rejects(["b"]), on=["uri"])
    return Path(store.uri) / "rejects.lance"


@pytest.fixture
def disk(tmp_path):
    """A file system of 512 KiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a file system takes root's rights")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def newest_manifest(table: Path) -> Path:
    return min((table / "_versions").glob("*.manifest"))  # their names count down


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def require_unknown_feature(manifest: Path) -> None:
    """Set a flag of the manifest: readers must know this feature (field 9 of its protobuf message)."""
    data = manifest.read_bytes()
    (start,) = struct.unpack("<Q", data[-16:-8])
    (length,) = struct.unpack("<I", data[start : start + 4])
    message, rest = data[start + 4 : start + 4 + length], data[start + 4 + length :]
    message += bytes([9 << 3, 0x80, 0x80, 0x80, 0x80, 0x01])
    manifest.write_bytes(data[:start] + struct.pack("<I", len(message)) + message + rest)


DAMAGES = {
    "manifest truncated": lambda table: truncate(newest_manifest(table)),
    "manifest empty": lambda table: newest_manifest(table).write_bytes(b""),
    "manifest overwritten": lambda table: newest_manifest(table).write_bytes(bytes(2000)),
    "data truncated": lambda table: truncate(next((table / "data").iterdir())),
    "data missing": lambda table: next((table / "data").iterdir()).unlink(),
    "data overwritten": lambda table: next((table / "data").iterdir()).write_bytes(bytes(range(250)) * 4),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_table_is_named_and_stays_as_it_is(store, table, damage):
    DAMAGES[damage](table)
    files = {path: path.read_bytes() for path in table.rglob("*") if path.is_file()}
    words = "damaged.* restore them" if damage != "manifest overwritten" else "lacks the column `uri`"
    with pytest.raises(UserError, match=rf"Table 'rejects' of .*{words}"):
        Store(store.uri).read("rejects")  # a connection of its own, which has nothing in its caches
    assert {path: path.read_bytes() for path in table.rglob("*") if path.is_file()} == files


def test_file_in_place_of_a_table_is_named(store, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "rejects.lance").write_text("")
    with pytest.raises(UserError, match=r"Table 'rejects' of"):
        store.merge("rejects", rejects(["a"]), on=["uri"])


def test_table_of_a_newer_lance_is_named(store, table):
    require_unknown_feature(newest_manifest(table))
    with pytest.raises(UserError, match=r"Table 'rejects' of .* newer version of Lance: upgrade Kallos"):
        store.read("rejects")


def test_full_disk_keeps_what_was_stored_and_the_next_run_continues(disk):
    store = Store(str(disk / "store"))
    store.merge("rejects", rejects(["a"]), on=["uri"])
    with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(UserError, match=r"Table 'rejects' of .* disk is full: free space"):
        store.merge("rejects", rejects(["a", "b"]), on=["uri"])
    with pytest.raises(UserError, match=r"Table 'aliases' of .* disk is full: free space"):
        store.set_alias("live", "0" * 16)
    assert store.read("rejects", ["uri"]).to_pydict() == {"uri": ["a"]}
    (disk / "filler").unlink()
    assert store.merge("rejects", rejects(["a", "b"]), on=["uri"]) == 1


def test_store_that_can_only_be_read_is_read_and_a_write_is_refused(disk):
    store = Store(str(disk / "store"))
    store.merge("rejects", rejects(["a"]), on=["uri"])
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert store.count("rejects") == 1
    with pytest.raises(UserError, match=r"Table 'rejects' of .* can only be read"):
        store.merge("rejects", rejects(["b"]), on=["uri"])
    with pytest.raises(UserError, match=r"Table 'aliases' of .* can only be read"):
        store.set_alias("live", "0" * 16)


@pytest.mark.parametrize("name", ["store/below", "store"])
def test_store_below_a_file_or_in_place_of_one_is_refused(tmp_path, name):
    (tmp_path / "store").write_text("")
    for use in (
        lambda store: store.exists("images"),
        lambda store: store.merge("rejects", rejects(["a"]), ["uri"]),
    ):
        with pytest.raises(UserError, match=rf"The store {tmp_path / name} "):
            use(Store(str(tmp_path / name)))


def test_store_whose_parent_cannot_be_made_is_refused():
    store = Store("/proc/nothing/store")
    with pytest.raises(UserError, match="/proc/nothing/store cannot be used: No such file or directory"):
        store.merge("rejects", rejects(["a"]), on=["uri"])


@pytest.mark.parametrize(
    ("name", "columns", "difference"),
    [
        ("images", {"image_id": ["a"], "file": ["b"]}, "lacks the column `uri`"),
        ("images", {"image_id": [1]}, "has the column `image_id` of type int64, not string"),
        (embeddings_table("0" * 16), {"image_id": ["a"], "vectors": [[1.0]]}, "`vector` of fixed length"),
    ],
)
def test_table_of_a_foreign_schema_is_named_with_its_difference(store, name, columns, difference):
    lancedb.connect(store.uri).create_table(name, pa.table(columns))
    for use in (lambda: store.read(name), lambda: store.exists(name), lambda: store.count(name)):
        with pytest.raises(UserError, match=rf"Table '{name}' of {store.uri} .*another program") as caught:
            use()
        assert difference in str(caught.value)


def test_unreachable_object_store_is_refused_within_a_minute(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    with pytest.raises(
        UserError, match="s3://bucket/store cannot be used: the object store cannot be reached"
    ):
        Store("s3://bucket/store").exists("images")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, os.strerror(28), "/data/x"), "disk is full"),
        (OSError(122, os.strerror(122)), "disk is full"),
        (PermissionError(13, os.strerror(13)), "denied"),
        (OSError(27, os.strerror(27)), "ulimit -f"),
        (OSError(24, os.strerror(24)), "ulimit -n"),
        (RuntimeError("lance error: Generic S3 error: ... Status { status: 403 Forbidden }"), "credentials"),
    ],
)
def test_fault_is_found_also_below_errors_of_other_libraries(error, words):
    outer = ValueError("A worker failed.")
    outer.__cause__ = error
    for each in (error, outer):
        assert words in (storage_fault(each) or "")
        assert not is_commit_conflict(each)
    assert storage_fault(RuntimeError("Forbidden: Not found: protobuf message")) is None, "of no store"
