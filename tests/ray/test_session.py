"""Sessions on real clusters: one that is started with 3 logical CPUs, and one of two nodes that is joined."""

import os
import socket
import time

import pytest
import ray

from cluster import session
from cluster.errors import UserError
from cluster.profile import ROOT, Stage, load_profile


@ray.remote(num_cpus=1)
def paths_in_a_worker() -> dict:
    import cluster.command
    import cluster.profile

    return {
        "root": str(cluster.profile.ROOT),
        "models": cluster.profile.repo_path("cluster/profiles/mini.yaml"),
    }


@pytest.fixture(scope="module")
def started():
    """A cluster of 3 CPUs, started by `connect` outside the folder of the repository."""
    ray.shutdown()
    before = os.getcwd()
    os.chdir("/")
    session.connect(load_profile("mini", ray={"num_cpus": 3, "object_store_bytes": 100_000_000}))
    yield
    ray.shutdown()
    os.chdir(before)


@pytest.fixture(scope="module")
def two_nodes(started):
    """The address of a cluster of two nodes with 2 CPUs each."""
    from ray.cluster_utils import Cluster

    ray.shutdown()
    node = {"num_cpus": 2, "object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(num_cpus=2, object_store_memory=100_000_000)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


def refused(stages) -> str:
    """The message with which `require` refuses the stages, within 30 s."""
    start_s = time.monotonic()
    with pytest.raises(UserError) as caught:
        session.require(stages)
    assert time.monotonic() - start_s < 30
    return str(caught.value)


def test_started_cluster_has_the_cpus_of_the_profile_and_a_token(started):
    assert ray.cluster_resources()["CPU"] == 3
    assert len(os.environ.get("RAY_AUTH_TOKEN", "")) == 64 or "RAY_AUTH_MODE" in os.environ
    (node,) = ray.nodes()
    assert len(node["ObjectStoreSocketName"]) <= 107, "the longest path of a socket"


def test_connecting_again_keeps_the_cluster(started):
    before = ray.get_runtime_context().get_job_id()
    session.connect(load_profile("mini", ray={"num_cpus": 5}))
    assert ray.get_runtime_context().get_job_id() == before
    assert ray.cluster_resources()["CPU"] == 3


def test_workers_import_our_packages_and_find_the_repository(started):
    paths = ray.get(paths_in_a_worker.remote())
    assert paths == {"root": str(ROOT), "models": str(ROOT / "cluster/profiles/mini.yaml")}


def test_pipeline_that_can_never_run_is_refused_with_the_missing_resources(started):
    session.require({"embed": Stage(num_cpus=1), "judge": Stage(num_cpus=1)})
    message = refused({"embed": Stage(num_cpus=2), "judge": Stage(num_cpus=2)})
    assert "needs 5 CPUs (embed 1 x 2, judge 1 x 2, reading and writing 1)" in message
    assert "can have 3, so 2 CPUs are missing" in message
    assert "needs 1 GPUs (judge 1 x 1)" in refused({"judge": Stage(num_gpus=1)})


def test_accepted_pipeline_runs(started):
    stages = {"double": Stage(min_actors=2, max_actors=2, num_cpus=1)}
    session.require(stages)

    class Double:
        def __call__(self, batch):
            return {"id": batch["id"] * 2}

    pool = ray.data.ActorPoolStrategy(size=stages["double"].min_actors)
    rows = ray.data.range(100).map_batches(Double, compute=pool, num_cpus=1, batch_size=10).take_all()
    assert sorted(row["id"] for row in rows) == list(range(0, 200, 2))


def test_joined_cluster_runs_the_code_of_the_repository(two_nodes):
    session.connect(load_profile("mini", ray={"address": two_nodes}))
    assert ray.cluster_resources()["CPU"] == 4
    paths = ray.get(paths_in_a_worker.remote())
    assert paths["root"] != str(ROOT), "nodes without the repository get a copy of its code"
    assert paths["models"].endswith("cluster/profiles/mini.yaml")


def test_actor_larger_than_any_node_is_refused(two_nodes):
    session.connect(load_profile("mini", ray={"address": two_nodes}))
    message = refused({"judge": Stage(num_cpus=3)})
    assert (
        "Stage 'judge' needs 1 actors of 3 CPUs, each on one node, and the nodes have room for 0" in message
    )


def test_resources_that_an_autoscaler_may_add_are_accepted(two_nodes):
    ray.shutdown()
    session.connect(load_profile("mini", ray={"address": two_nodes, "max_cpus": 16, "max_gpus": 1}))
    session.require({"judge": Stage(num_cpus=4, num_gpus=1)})
    assert "1 GPUs are missing" in refused({"judge": Stage(num_gpus=2)})


@pytest.mark.parametrize("address", ["127.0.0.1:{free}", "head", "auto:x"])
def test_address_without_a_cluster_is_refused_within_30_seconds(two_nodes, address):
    ray.shutdown()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = address.format(free=free.getsockname()[1])
        start_s = time.monotonic()
        with pytest.raises(UserError, match=address):
            session.connect(load_profile("mini", ray={"address": address}))
        assert time.monotonic() - start_s < 30
