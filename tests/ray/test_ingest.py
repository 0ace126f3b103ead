"""Ingest with Ray and LanceDB: every kind of source, hostile files, repeated and killed runs."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
import yaml
from hostile_files import photo, write_special_files, write_tar
from pictures import encoded, gradient, readable, unreadable, write_photos
from pyarrow import parquet
from tiny_encoder import write_tiny_encoder

from actors import images
from actors.encoder import Encoder
from actors.images import Fit, image_id
from actors.missing_vectors import COUNTS
from actors.scorers import PromptPairs
from cluster.tables import EncoderRecord, Store, embeddings_table
from jobs.index import job as index
from jobs.index.config import IndexConfig
from jobs.ingest.config import IngestConfig
from jobs.ingest.job import run
from jobs.ingest.lookup import Lookup
from jobs.ingest.prepare import NEW, REJECTED, DecodeSettings, prepare
from jobs.ingest.sources.opening import open_source

SETTINGS = DecodeSettings(Fit(96, 96), preview_px=64, max_pixels=10_000_000)
NUM_PLAIN = 21


@pytest.fixture(scope="module")
def profile(mini_profile, tiny_encoder_folder, tmp_path_factory) -> str:
    """A profile file: `mini` with the tiny encoder and one small actor per stage."""
    values = mini_profile.model_dump(mode="json")
    values["encoder"]["model"] = tiny_encoder_folder
    values["encoder"]["stage"] |= {"min_actors": 1, "max_actors": 1, "batch_size": 8}
    values["encoder"]["decode"] |= {"min_actors": 1, "max_actors": 1, "batch_size": 8}
    path = tmp_path_factory.mktemp("profile") / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs with captions, every kind of hostile file, and one file under two names."""
    folder = tmp_path_factory.mktemp("photos")
    names = write_photos(folder, NUM_PLAIN)
    for name, data in readable().items():
        (folder / name).write_bytes(data)
    for name, (data, _) in unreadable().items():
        (folder / name).write_bytes(data)
    (folder / "again.jpg").write_bytes((folder / names[0]).read_bytes())
    rows = [{"file_name": name, "captions": [f"photo {name}", f"a long line on {name}"]} for name in names]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "metadata.parquet")
    return folder


@pytest.fixture(scope="module")
def ingested(ray_cluster, profile, folder, tmp_path_factory):
    """(report, store) after ingesting the folder once."""
    store = str(tmp_path_factory.mktemp("ingested") / "store")
    return run(IngestConfig(profile=profile, store=store, source=str(folder))), Store(store)


def test_every_file_is_ingested_or_rejected(ingested, folder):
    report, store = ingested
    num_new = NUM_PLAIN + len(readable())
    assert (report["num_images"], report["num_embeddings"]) == (num_new, num_new)
    assert (report["num_duplicates"], report["num_rejects"]) == (1, len(unreadable()))
    assert report["num_inputs"] == num_new + 1 + len(unreadable()) and report["num_known"] == 0
    reasons = {row["uri"]: row["error"] for row in store.read("rejects").to_pylist()}
    assert set(reasons) == {str(folder / name) for name in unreadable()}


def test_rows_have_the_values_of_the_files_and_of_the_metadata(ingested, folder):
    _, store = ingested
    rows = {os.path.basename(row["uri"]): row for row in store.read("images").to_pylist()}
    turned, accented = rows["rotated.jpg"], rows["été ☀ 夕焼け.jpg"]
    assert (turned["width_px"], turned["height_px"]) == (60, 120)
    assert accented["image_id"] == image_id((folder / "été ☀ 夕焼け.jpg").read_bytes())
    plain = rows["photo_0003.jpg"]
    assert plain["caption"] == "photo photo_0003.jpg"
    assert plain["detailed_caption"] == "a long line on photo_0003.jpg"
    assert plain["source"] == folder.name
    assert images.decode(plain["preview"]).size == (120, 90)


def test_stored_vectors_equal_direct_calls_of_the_encoder(ingested, folder, tiny_encoder_folder):
    report, store = ingested
    encoder = Encoder.load(tiny_encoder_folder)
    files = {image_id(path.read_bytes()): path.read_bytes() for path in folder.iterdir()}
    scorer = PromptPairs.of(encoder.encode_texts, encoder.temperature)
    columns = ["image_id", "vector", "aesthetic"]
    for row in store.read(embeddings_table(report["encoder"]), columns=columns).to_pylist():
        direct = encoder.encode_images(encoder.pixels(images.decode(files[row["image_id"]]))[None])[0]
        np.testing.assert_allclose(row["vector"], direct, atol=1e-5)
        assert row["aesthetic"] == pytest.approx(scorer.score(direct[None])[0], abs=1e-4)


def test_the_first_encoder_is_registered_as_baseline_and_live(ingested, tiny_encoder_folder):
    report, store = ingested
    assert store.aliases() == {"baseline": report["encoder"], "live": report["encoder"]}
    record = store.encoder("baseline")
    assert (record.checkpoint, record.dim, record.parent) == (tiny_encoder_folder, 32, "")


def test_ingesting_twice_adds_nothing(ingested, profile, folder):
    first, store = ingested
    counts = {name: store.count(name) for name in store.names()}
    report = run(IngestConfig(profile=profile, store=store.uri, source=str(folder)))
    assert (report["num_images"], report["num_embeddings"], report["num_duplicates"]) == (0, 0, 0)
    assert report["num_known"] == first["num_images"] + 1
    assert {name: store.count(name) for name in store.names()} == counts


def write_source(kind: str, path: Path) -> int:
    """Write a source with 6 images, 2 duplicates of one, and rejects; returns the number of rejects."""
    data = [photo(index) for index in (0, 1, 2, 3, 4, 5, 0, 0)]
    bad = [b"no image", b"", None, None, None]
    if kind == "folder":
        path.mkdir()
        for index, content in enumerate(data):
            (path / f"{index}\n.jpg").write_bytes(content)
        for index, content in enumerate((b"no image", b"")):
            (path / f"bad{index}.jpg").write_bytes(content)
        return 2 + len(write_special_files(path))
    if kind == "webdataset":
        members = [("0.jpg", data[0]), ("0.json", b'{"caption": "\\ud83d"}'), ("1.cls", b"7")]
        members += [(f"{index}.x.jpg", content) for index, content in enumerate(data)]
        members += [("bad.jpg", b"no image"), ("bad.jpg", b"no image"), ("word.txt", b"alone")]
        write_tar(path.with_suffix(".tar"), members)
        return 3
    table = pa.table({"bytes": data + bad, "uri": [None] * 12 + ["gone.jpg"]})
    write = parquet.write_table if kind == "parquet" else lance.write_dataset
    write(table, path.with_suffix(f".{kind}"))
    return len(bad)


@pytest.mark.parametrize("kind", ["folder", "webdataset", "parquet", "lance"])
def test_the_report_and_the_tables_agree(ray_cluster, profile, tmp_path, kind):
    num_rejects = write_source(kind, tmp_path / "source")
    (source,) = (path for path in tmp_path.iterdir() if path.name.startswith("source"))
    store = Store(str(tmp_path / "store"))

    def ingest() -> dict[str, int]:
        """Ingest the source; the report's counts, of which every input is one."""
        report = run(IngestConfig(profile=profile, store=store.uri, source=str(source)))
        outcomes = ("num_images", "num_known", "num_duplicates", "num_rejects")
        assert report["num_inputs"] == sum(report[name] for name in outcomes)
        return report

    report = ingest()
    assert (report["num_images"], report["num_rejects"]) == (6, num_rejects)
    tables = ("images", "rejects", embeddings_table(report["encoder"]))
    rows = [store.count(name) for name in tables]
    assert rows == [report["num_images"], report["num_rejects"], report["num_embeddings"]]
    if kind in ("folder", "lance"):  # each of the others has a way of its own to name rows again
        return
    again = ingest()
    assert (again["num_inputs"], again["num_images"]) == (report["num_inputs"], 0)
    assert again["num_rejects"] == num_rejects
    assert [store.count(name) for name in tables] == rows


def test_after_a_promotion_new_images_are_also_embedded_for_the_live_encoder(ray_cluster, profile, tmp_path):
    write_photos(tmp_path / "old", 3)
    names = write_photos(tmp_path / "new", 5, seed=3)
    store = Store(str(tmp_path / "store"))

    def ingest(folder: str) -> dict:
        """Ingest a folder; returns the report's part about the other encoders."""
        config = IngestConfig(profile=profile, store=store.uri, source=str(tmp_path / folder))
        return run(config)["other_encoders"]

    assert ingest("old") == {}
    checkpoint = write_tiny_encoder(tmp_path / "promoted", seed=1)
    promoted = Encoder.load(checkpoint)
    live, table = promoted.fingerprint, embeddings_table(promoted.fingerprint)
    store.register_encoder(EncoderRecord(encoder=live, checkpoint=checkpoint, dim=promoted.dim))
    index.run(IndexConfig(profile=profile, store=store.uri, encoder=live))
    store.set_alias("live", live)
    counts = dict.fromkeys(COUNTS, 0) | {"num_embedded": 5}
    assert ingest("new") == {live: {"aliases": ["live"], **counts}}
    vectors = {row["image_id"]: row["vector"] for row in store.read(table).to_pylist()}
    assert len(vectors) == 8
    for name in names:
        data = (tmp_path / "new" / name).read_bytes()
        direct = promoted.encode_images(promoted.pixels(images.decode(data))[None])[0]
        np.testing.assert_allclose(vectors[image_id(data)], direct, atol=1e-5)
    store.open(table).delete(
        f"image_id = '{image_id(data)}'"
    )  # as if the run had been killed before this step
    assert ingest("new")[live]["num_embedded"] == 1 and store.count(table) == 8
    assert ingest("new")[live]["num_embedded"] == 0 and store.count(table) == 8


def test_a_killed_run_continues_and_gives_the_same_tables(ray_cluster, profile, tmp_path):
    names = write_photos(tmp_path / "many", 400, seed=2, width=60, height=45)
    store = Store(str(tmp_path / "store"))
    options = {"profile": profile, "store": store.uri, "source": str(tmp_path / "many"), "flush_seconds": 0.0}
    _kill_after(options, store, rows=24)
    before = store.count("images")
    assert 24 <= before < len(names)
    report = run(IngestConfig(**options))
    assert report["num_known"] >= before and report["num_inputs"] == len(names)
    expected = sorted(image_id(path.read_bytes()) for path in (tmp_path / "many").iterdir())
    for table in ("images", embeddings_table(report["encoder"])):
        assert sorted(store.read(table, columns=["image_id"])["image_id"].to_pylist()) == expected


def _kill_after(options, store, rows):
    """Run the job in its own process and send SIGKILL once `images` has that many rows."""
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    process = subprocess.Popen([sys.executable, "-m", "jobs.ingest", *arguments], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            if store.exists("images") and store.count("images") >= rows:
                break
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL


# --- the other kinds of source, without embedding


def prepared(source, **options) -> list[dict]:
    """The rows of a source after the CPU stage."""
    decode = yaml.safe_load('{"min_actors": 1, "max_actors": 1, "batch_size": 8}')
    opened = open_source(IngestConfig(source=str(source), **options), stages_of(decode))
    known = Lookup(pa.array([], pa.string()))
    arguments = {"rows": opened.rows, "settings": SETTINGS, "known": known}
    return opened.dataset().map_batches(prepare, batch_format="pyarrow", fn_kwargs=arguments).take_all()


def stages_of(values):
    from cluster.profile import Stage

    return Stage(**values)


def test_parquet_with_a_column_of_bytes(ray_cluster, tmp_path):
    photos = [encoded(gradient(seed=seed)) for seed in range(12)] + [b"not an image"]
    table = pa.table({"jpeg": photos, "caption": [f"photo {n}" for n in range(13)], "split": ["train"] * 13})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=5)
    rows = prepared(tmp_path / "x.parquet", bytes_column="jpeg")
    assert {row["image_id"] for row in rows if row["status"] == NEW} == {
        image_id(data) for data in photos[:-1]
    }
    assert [row["stage"] for row in rows if row["status"] == REJECTED] == ["decode"]
    first = next(row for row in rows if row["image_id"] == image_id(photos[0]))
    assert (first["caption"], list(first["tags"])) == ("photo 0", ["split:train"])
    assert first["uri"] == f"{tmp_path}/x.parquet#0"


def test_parquet_with_a_column_of_addresses(ray_cluster, tmp_path):
    names = write_photos(tmp_path / "files", 3)
    addresses = [f"files/{name}" for name in names[:2]] + [f"{tmp_path}/files/{names[2]}", "files/gone.jpg"]
    parquet.write_table(pa.table({"uri": addresses}), tmp_path / "x.parquet")
    rows = prepared(tmp_path / "x.parquet")
    assert sorted(row["uri"] for row in rows if row["status"] == NEW) == [
        f"{tmp_path}/files/{name}" for name in names
    ]
    (rejected,) = (row for row in rows if row["status"] == REJECTED)
    assert (rejected["uri"], rejected["stage"]) == (f"{tmp_path}/files/gone.jpg", "read")


def test_webdataset_tars_of_which_one_is_truncated(ray_cluster, tmp_path):
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for number in range(4):
                for suffix, data in (("jpg", encoded(gradient(seed=10 * shard + number))), ("txt", b"words")):
                    info = tarfile.TarInfo(f"{shard}{number}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    (tmp_path / "2.tar").write_bytes((tmp_path / "1.tar").read_bytes()[:5000])
    rows = prepared(tmp_path)
    new = [row for row in rows if row["status"] == NEW]
    assert {row["image_id"] for row in new} == {
        image_id(encoded(gradient(seed=10 * shard + number))) for shard in range(2) for number in range(4)
    }
    assert {row["caption"] for row in new if "2.tar" not in row["uri"]} == {"words"}
    assert [row["uri"] for row in rows if row["status"] == REJECTED] == [f"{tmp_path}/2.tar"]


def test_lance_table(ray_cluster, tmp_path):
    photos = [encoded(gradient(seed=seed)) for seed in range(5)]
    lance.write_dataset(pa.table({"bytes": photos, "caption": list("abcde")}), tmp_path / "x.lance")
    rows = prepared(tmp_path / "x.lance")
    assert sorted(row["caption"] for row in rows if row["status"] == NEW) == list("abcde")
    assert {row["image_id"] for row in rows} == {image_id(data) for data in photos}


def test_a_file_that_vanishes_after_the_listing_is_rejected(ray_cluster, tmp_path):
    names = write_photos(tmp_path, 6)
    opened = open_source(IngestConfig(source=str(tmp_path)), stages_of({"batch_size": 8}))
    (tmp_path / names[2]).unlink()
    arguments = {"rows": opened.rows, "settings": SETTINGS, "known": Lookup(pa.array([], pa.string()))}
    rows = opened.dataset().map_batches(prepare, batch_format="pyarrow", fn_kwargs=arguments).take_all()
    assert sorted(row["status"] for row in rows) == [NEW] * 5 + [REJECTED]
    (rejected,) = (row for row in rows if row["status"] == REJECTED)
    assert rejected["uri"].endswith(names[2]) and "cannot be opened" in rejected["error"]
