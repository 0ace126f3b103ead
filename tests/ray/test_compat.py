"""What `cluster.compat` assumes of Ray, Ray Data and Serve, checked on a real cluster."""

import os
import socket
import warnings

import lance
import pyarrow as pa
import pytest
import ray
from ray import serve

from actors.stages import add_stage
from cluster import session
from cluster.compat.ray_data import read_lance
from cluster.compat.serve import proxy_address
from cluster.profile import Stage, load_profile
from jobs.ingest.sources.folder import ImageFiles
from jobs.ingest.sources.image_text import TextColumns
from jobs.ingest.sources.listing import locate


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """A cluster of 4 CPUs."""
    ray.shutdown()
    session.connect(load_profile("mini", ray={"num_cpus": 4, "object_store_bytes": 100_000_000}))
    yield
    ray.shutdown()


def test_ray_puts_its_files_into_the_given_folder():
    (node,) = ray.nodes()
    assert node["ObjectStoreSocketName"].startswith("/tmp/kallos-"), "temporary_folder: Ray ignores it"


def test_ray_fuses_stages_of_equal_resources_except_those_of_add_stage():
    def with_pid(batch):
        return batch | {"task_pid": [os.getpid()] * len(batch["id"])}

    class WithActorPid:
        def __call__(self, batch):
            return batch | {"actor_pid": [os.getpid()] * len(batch["id"])}

    tasks = ray.data.range(8, override_num_blocks=2).map_batches(with_pid, num_cpus=1)
    plain = tasks.map_batches(WithActorPid, num_cpus=1, compute=ray.data.ActorPoolStrategy(size=1))
    fused = plain.take_all()
    assert all(row["task_pid"] == row["actor_pid"] for row in fused), "add_stage: Ray fuses no more"
    stage = Stage(min_actors=1, max_actors=1, num_cpus=1)
    separate = add_stage(tasks, WithActorPid, {}, stage, batch_format="numpy").take_all()
    assert len(separate) == 8
    assert all(row["task_pid"] != row["actor_pid"] for row in separate), "add_stage: Ray decodes in encoders"


def test_read_lance_filters_decodes_blobs_and_uses_no_deprecated_arguments(tmp_path):
    blob = pa.field("data", pa.large_binary(), metadata={"lance-encoding:blob": "true"})
    schema = pa.schema([pa.field("number", pa.int64()), blob])
    table = pa.Table.from_pydict({"number": [1, 2, 3], "data": [b"a", b"b", b"c"]}, schema=schema)
    lance.write_dataset(table, str(tmp_path / "t.lance"), data_storage_version="2.1")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*deprecated", category=DeprecationWarning)
        uri = str(tmp_path / "t.lance")
        rows = read_lance(uri, ["number", "data"], "number > 1", num_cpus=1, num_tasks=2).take_all()
    assert [(row["number"], row["data"]) for row in rows] == [(2, b"b"), (3, b"c")]


def test_file_reader_reads_each_path_as_it_is_and_gives_a_row_for_a_file_that_cannot_be_opened(tmp_path):
    names = ["good.jpg", "new\nline.jpg", "a%20b.jpg", "C:x.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    files = [(f"{tmp_path}/{name}", 4) for name in [*names, "gone.jpg"]]
    reader = ImageFiles(locate(str(tmp_path)), files, {}, TextColumns())
    rows = ray.data.read_datasource(reader, override_num_blocks=3).take_all()
    *good, gone = sorted(rows, key=lambda row: row["error"])
    assert {row["uri"]: row["bytes"] for row in good} == {f"{tmp_path}/{x}": x.encode() for x in names}
    assert gone["bytes"] == b"" and "cannot be opened" in gone["error"] and "gone.jpg" in gone["error"]


def test_proxy_address_is_where_serve_listens():
    assert proxy_address() is None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    try:
        assert proxy_address() == ("127.0.0.1", port)
    finally:
        serve.shutdown()
