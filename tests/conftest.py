"""What several tests need: an offline environment, a tiny profile, one Ray cluster per module."""

import os

# Set before anything is imported: tests use no network.
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    VLLM_NO_USAGE_STATS="1",
    RAY_USAGE_STATS_ENABLED="0",
    TOKENIZERS_PARALLELISM="false",
)

import pytest

from cluster.profile import Profile, load_profile
from cluster.tables import Store


@pytest.fixture(scope="session")
def mini_profile(tmp_path_factory) -> Profile:
    """The `mini` profile with a small object store and tables in a temporary folder."""
    store = tmp_path_factory.mktemp("store")
    return load_profile("mini", store=str(store), ray={"object_store_bytes": 300_000_000})


@pytest.fixture(scope="session")
def tiny_encoder_folder(tmp_path_factory) -> str:
    """A random open_clip encoder: resnet10t at 96 px, 32 dimensions, context 24, byte-level BPE."""
    from tiny_encoder import write_tiny_encoder

    return write_tiny_encoder(tmp_path_factory.mktemp("encoders") / "tiny")


@pytest.fixture
def store(tmp_path) -> Store:
    """An empty store of this test's own."""
    return Store(str(tmp_path / "store"))


@pytest.fixture(scope="module")
def ray_cluster(mini_profile):
    """One local Ray cluster for the module, with the logical CPUs of the `mini` profile."""
    import ray

    from cluster.session import connect

    ray.shutdown()  # an earlier module may have left its cluster running
    connect(mini_profile)
    yield mini_profile
    ray.shutdown()


def pytest_terminal_summary(terminalreporter):
    """Report how many requests `test_schemathesis.py` generated, over all its operations and workers."""
    reports = (report for group in terminalreporter.stats.values() for report in group)
    found = [dict(report.user_properties) for report in reports if getattr(report, "when", "") == "teardown"]
    if total := sum(properties.get("num_generated_requests", 0) for properties in found):
        terminalreporter.write_line(f"{total} generated requests were sent and their responses checked.")
