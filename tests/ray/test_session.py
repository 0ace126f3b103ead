"""Sessions on real clusters: one started here with 3 logical CPUs, then one of two nodes that is joined."""

import os
import socket
import time

import pytest
import ray

from cluster import session
from cluster.errors import UserError
from cluster.profile import ROOT, Stage, load_profile


@ray.remote(num_cpus=1)
def where_a_worker_is() -> dict:
    import cluster.command
    import cluster.profile

    return {
        "root": str(cluster.profile.ROOT),
        "models": cluster.profile.repo_path("cluster/profiles/mini.yaml"),
    }


@pytest.fixture(scope="module")
def started():
    """A cluster that `connect` started with 3 CPUs, from another folder than the repository."""
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


def test_a_cluster_started_here_has_the_profiles_cpus_and_a_token(started):
    assert ray.cluster_resources()["CPU"] == 3
    assert len(os.environ.get("RAY_AUTH_TOKEN", "")) == 64 or "RAY_AUTH_MODE" in os.environ
    folder = ray._private.worker.global_worker.node.get_temp_dir_path()
    assert len(folder) < 30, "sockets below it have paths of at most 107 characters"


def test_connecting_again_changes_nothing(started):
    before = ray.get_runtime_context().get_job_id()
    session.connect(load_profile("mini", ray={"num_cpus": 5}))
    assert ray.get_runtime_context().get_job_id() == before
    assert ray.cluster_resources()["CPU"] == 3


def test_workers_find_the_packages_and_the_repository(started):
    seen = ray.get(where_a_worker_is.remote())
    assert seen == {"root": str(ROOT), "models": str(ROOT / "cluster/profiles/mini.yaml")}


def test_a_pipeline_that_can_never_run_is_refused_with_what_is_missing(started):
    session.require({"embed": Stage(num_cpus=1), "judge": Stage(num_cpus=1)})
    message = refused({"embed": Stage(num_cpus=2), "judge": Stage(num_cpus=2)})
    assert "needs 5 CPUs (embed 1 x 2, judge 1 x 2, reading and writing 1)" in message
    assert "can have 3, so 2 CPUs are missing" in message
    assert "needs 1 GPUs (judge 1 x 1)" in refused({"judge": Stage(num_gpus=1)})


def test_what_is_let_through_does_run(started):
    stages = {"double": Stage(min_actors=2, max_actors=2, num_cpus=1)}
    session.require(stages)

    class Double:
        def __call__(self, batch):
            return {"id": batch["id"] * 2}

    pool = ray.data.ActorPoolStrategy(size=stages["double"].min_actors)
    rows = ray.data.range(100).map_batches(Double, compute=pool, num_cpus=1, batch_size=10).take_all()
    assert sorted(row["id"] for row in rows) == list(range(0, 200, 2))


def test_a_cluster_that_is_joined_runs_the_repositorys_code(two_nodes):
    session.connect(load_profile("mini", ray={"address": two_nodes}))
    assert ray.cluster_resources()["CPU"] == 4
    seen = ray.get(where_a_worker_is.remote())
    assert seen["root"] != str(ROOT), "the code was sent along, for nodes that do not have it"
    assert seen["models"].endswith("cluster/profiles/mini.yaml")


def test_an_actor_larger_than_any_node_is_refused(two_nodes):
    session.connect(load_profile("mini", ray={"address": two_nodes}))
    message = refused({"judge": Stage(num_cpus=3)})
    assert (
        "Stage 'judge' needs 1 actors of 3 CPUs, each on one node, and the nodes have room for 0" in message
    )


def test_what_an_autoscaler_may_add_is_not_refused(two_nodes):
    ray.shutdown()
    session.connect(load_profile("mini", ray={"address": two_nodes, "max_cpus": 16, "max_gpus": 1}))
    session.require({"judge": Stage(num_cpus=4, num_gpus=1)})
    assert "1 GPUs are missing" in refused({"judge": Stage(num_gpus=2)})


@pytest.mark.parametrize("address", ["127.0.0.1:{free}", "head", "auto:x"])
def test_an_address_where_nothing_answers_is_refused_soon(two_nodes, address):
    ray.shutdown()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = address.format(free=free.getsockname()[1])
        start_s = time.monotonic()
        with pytest.raises(UserError, match=address):
            session.connect(load_profile("mini", ray={"address": address}))
        assert time.monotonic() - start_s < 30
