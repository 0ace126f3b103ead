"""Every verb with stages that reserve parts of one GPU: it ends, and its encoders run on CUDA."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import yaml

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.timeout(900),
]

# Together less than one GPU: `label` holds all three at the same time.
GPUS = {"encoder": 0.2, "rephraser": 0.35, "judge": 0.35}
ENGINE = {"dtype": "bfloat16", "gpu_memory_utilization": 0.1}
DEVICES = "devices.txt"


def gpu_profile(folder: Path) -> str:
    """The path of a copy of `mini` whose stages reserve GPUs."""
    from cluster.profile import PROFILES

    values = yaml.safe_load((PROFILES / "mini.yaml").read_text())
    values["store"] = str(folder / "store")
    for part, num_gpus in GPUS.items():
        values[part]["stage"] |= {"num_gpus": num_gpus, "max_actors": 1}
    for part in ("rephraser", "judge"):
        values[part]["engine_args"] |= ENGINE
    values["align"] |= {"use_gpu": True, "num_workers": 1, "epochs": 1}
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def device_recorder(path: Path) -> Callable[[], None]:
    """A hook for worker processes: it writes the device of every encoder that they load into the file."""

    # Nested, because Ray sends a function of a test module by its name, which workers cannot import.
    def record() -> None:
        from actors.encoder import Encoder

        load = Encoder.load

        def recording(*args: Any, **options: Any) -> Encoder:
            encoder = load(*args, **options)
            with path.open("a") as file:
                file.write(f"{encoder.device}\n")
            return encoder

        Encoder.load = recording

    return record


class World:
    """One small studio, and the devices of the encoders that Ray's workers load."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.common = {"profile": gpu_profile(folder)}

    def run(self, verb: Any, config: type, **options: Any) -> tuple[dict, list[str]]:
        """(report, devices of the encoders loaded by workers) of one verb."""
        path = self.folder / DEVICES
        path.write_text("")
        report = verb(config(**self.common, **options))
        return report, path.read_text().split()


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    """A studio, and Ray with a hook that records devices in every worker."""
    import ray

    from cluster.profile import load_profile
    from cluster.session import connect
    from lab.studio import job as studio
    from lab.studio.config import StudioConfig

    folder = tmp_path_factory.mktemp("gpu")
    world = World(folder)
    sizes = {"num_images": 400, "num_train_queries": 8, "num_heldout_queries": 8, "num_hpir": 0}
    studio.run(StudioConfig(out=str(folder / "studio"), **sizes, **world.common))
    ray.shutdown()
    init, hook = ray.init, {"worker_process_setup_hook": device_recorder(folder / DEVICES)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", lambda **options: init(**options, runtime_env=hook))
        connect(load_profile(world.common["profile"]))
    yield world
    ray.shutdown()


@pytest.fixture(scope="module")
def ingested(world) -> tuple[dict, list[str]]:
    from jobs.ingest.config import IngestConfig
    from jobs.ingest.job import run

    return world.run(run, IngestConfig, source=str(world.folder / "studio"))


@pytest.fixture(scope="module")
def labelled(world, ingested) -> tuple[dict, list[str]]:
    from jobs.label.config import LabelConfig
    from jobs.label.job import run

    return world.run(run, LabelConfig, num_queries=4)


@pytest.fixture(scope="module")
def aligned(world, labelled) -> tuple[dict, list[str]]:
    from jobs.align.config import AlignConfig
    from jobs.align.job import run

    return world.run(run, AlignConfig, run_id=labelled[0]["run_id"])


@pytest.fixture(scope="module")
def indexed(world, aligned) -> tuple[dict, list[str]]:
    from jobs.index.config import IndexConfig
    from jobs.index.job import run

    return world.run(run, IndexConfig, encoder="candidate")


def test_ingest_embeds_on_the_gpu(ingested):
    report, devices = ingested
    assert report["num_images"] > 0
    assert set(devices) == {"cuda"}


def test_label_retrieves_on_the_cpu_and_loads_its_engines_on_the_gpu(labelled):
    report, devices = labelled
    assert report["num_queries_labelled"] == 4 and report["num_preferences"] > 0
    assert set(devices) == {"cpu"}


def test_align_encodes_and_trains_on_the_gpu(aligned):
    report, devices = aligned
    assert report["encoder"] != report["parent"]
    assert set(devices) == {"cuda"} and len(devices) >= 2


def test_index_embeds_on_the_gpu(indexed):
    report, devices = indexed
    assert report["num_embedded"] > 0
    assert set(devices) == {"cuda"}


def test_evaluate_ends(world, indexed):
    from jobs.evaluate.config import EvaluateConfig
    from jobs.evaluate.job import run

    sizes = {"num_queries": 4, "num_caption_queries": 20, "num_teacher_captions": 4}
    report, devices = world.run(run, EvaluateConfig, out=str(world.folder / "evaluate"), **sizes)
    assert {"baseline", "teacher", "aligned"} <= report["systems"].keys()
    assert "cuda" not in devices


def test_serve_encodes_queries_on_the_gpu(world, indexed):
    from serve_app import app
    from serve_app.config import ServeConfig

    address, devices = world.run(app.deploy, ServeConfig, port=0)
    answer = httpx.post(f"{address}/v1/search", json={"query": "a red boat", "k": 5}, timeout=60)
    assert answer.status_code == 200 and len(answer.json()["results"]) == 5
    assert set(devices) == {"cuda"}
