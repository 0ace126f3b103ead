"""The arithmetic of `session.require`, without Ray."""

import pytest

from cluster.profile import Stage, load_profile
from cluster.session import shortage

CPU2 = {"CPU": 2.0}
GPU1 = {"CPU": 16.0, "GPU": 1.0}


def stage(**values) -> Stage:
    return Stage(**{"max_actors": 64, **values})


@pytest.mark.parametrize(
    ("stages", "nodes"),
    [
        ({"embed": stage(num_cpus=1)}, [CPU2]),
        ({"embed": stage(num_cpus=2)}, [CPU2, CPU2]),
        ({"read": stage(num_cpus=0)}, [CPU2]),
        ({"llm": stage(num_gpus=0.45), "lmm": stage(num_gpus=0.45), "embed": stage(num_gpus=0.1)}, [GPU1]),
        ({}, [CPU2]),
    ],
)
def test_stages_that_fit_are_accepted(stages, nodes):
    assert shortage(stages, nodes, {}) == ""


@pytest.mark.parametrize(
    ("stages", "nodes", "words"),
    [
        ({"embed": stage(num_cpus=2)}, [CPU2], ["3 CPUs", "embed 1 x 2", "can have 2", "1 CPUs are missing"]),
        ({"a": stage(num_cpus=1), "b": stage(num_cpus=1)}, [CPU2], ["a 1 x 1, b 1 x 1, reading", "1 CPUs"]),
        ({"judge": stage(num_gpus=1)}, [CPU2, CPU2], ["1 GPUs", "judge 1 x 1", "can have 0"]),
        (
            {"judge": stage(num_gpus=1, min_actors=3)},
            [GPU1, GPU1],
            ["3 GPUs", "judge 3 x 1", "1 GPUs are missing"],
        ),
        ({"judge": stage(num_cpus=3)}, [CPU2, CPU2], ["'judge'", "1 actors of 3 CPUs", "room for 0"]),
        (
            {"judge": stage(num_cpus=4, num_gpus=1)},
            [CPU2, {"GPU": 1.0}, CPU2, CPU2],
            ["4 CPUs and 1 GPUs", "room for 0"],
        ),
        ({"embed": stage(num_cpus=3, min_actors=2)}, [{"CPU": 5.0}, CPU2], ["room for 1"]),
    ],
)
def test_message_names_missing_resources_and_stages(stages, nodes, words):
    message = shortage(stages, nodes, {})
    assert all(word in message for word in words), message


def test_resources_that_an_autoscaler_may_add_count():
    judge = {"judge": stage(num_cpus=4, num_gpus=1, min_actors=3)}
    assert shortage(judge, [CPU2], {"CPU": 64, "GPU": 3}) == ""
    assert "1 GPUs are missing" in shortage(judge, [CPU2], {"CPU": 64, "GPU": 2})


@pytest.mark.parametrize(
    ("name", "nodes"), [("mini", [{"CPU": 8.0}]), ("gpu", [{"CPU": 16.0, "GPU": 1.0}]), ("fleet", [])]
)
def test_shipped_profiles_fit_the_resources_they_declare(name, nodes):
    profile = load_profile(name)
    stages = {
        "decode": profile.encoder.decode,
        "embed": profile.encoder.stage,
        "rephrase": profile.rephraser.stage,
        "judge": profile.judge.stage,
    }
    assert shortage(stages, nodes, {"CPU": profile.ray.max_cpus, "GPU": profile.ray.max_gpus}) == ""
