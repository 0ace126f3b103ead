"""What can be checked is refused before the expensive part of a verb: sizes, folders, options, ports."""

import socket

import numpy as np
import pytest
from PIL import Image

from cluster.command import output_folder, validated
from cluster.errors import UserError
from cluster.profile import ROOT
from jobs.evaluate.config import EvaluateConfig
from lab.bench.align import job as bench_align
from lab.bench.ingest import job as bench_ingest
from lab.bench.label import job as bench_label
from lab.demo import job as demo
from lab.demo.config import DemoConfig
from lab.photographs import job as photographs
from lab.pretrain.encoder import job as encoder
from lab.pretrain.judge import job as judge
from lab.pretrain.rephraser import job as rephraser
from lab.suite import job as suite
from lab.suite.config import SuiteConfig

MINI = ROOT / "models" / "mini"
CONFIGS = {
    "encoder": encoder.PretrainEncoderConfig,
    "judge": judge.PretrainJudgeConfig,
    "rephraser": rephraser.PretrainRephraserConfig,
    "demo": DemoConfig,
    "suite": SuiteConfig,
    "evaluate": EvaluateConfig,
    "bench label": bench_label.BenchLabelConfig,
}
REFUSED = [
    ("encoder", {"batch_size": 300, "num_images": 200}, "batch_size = 300 is more than num_images = 200"),
    ("encoder", {"seed": -1}, "seed = -1"),
    ("judge", {"vision_width": 50}, "vision_width = 50: Input should be a multiple of 32"),
    ("judge", {"text_width": 100}, "text_width = 100"),
    ("judge", {"images_per_step": 10}, "images_per_step = 10"),
    ("rephraser", {"hidden_size": 100}, "hidden_size = 100 is not a multiple of 2 x num_heads = 12"),
    ("rephraser", {"num_kv_heads": 4}, "num_heads = 6 is not a multiple of num_kv_heads = 4"),
    ("demo", {"num_queries": 301}, "num_queries = 301"),
    ("demo", {"num_eval_queries": 101}, "num_eval_queries = 101"),
    ("suite", {"num_train_queries": 301}, "num_train_queries = 301"),
    ("suite", {"num_queries": 101}, "num_queries = 101"),
    ("evaluate", {"seed": -1}, "seed = -1"),
    ("bench label", {"models": ()}, "models"),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "options", "message"), REFUSED)
def test_sizes_that_do_not_fit_are_refused_with_the_options(verb, options, message):
    with pytest.raises(UserError, match=message):
        validated(CONFIGS[verb], options)


def test_output_folder_is_made_and_must_be_writable(tmp_path):
    assert output_folder(tmp_path / "new" / "below") == tmp_path / "new" / "below"
    assert not list(output_folder(tmp_path / "new" / "below").iterdir())
    (tmp_path / "file").touch()
    for folder in (
        tmp_path / "file",
        tmp_path / "file" / "below",
        "/proc/none",
        "s3://bucket/out",
        "x" * 300,
    ):
        with pytest.raises(UserError, match=r"cannot be written|is an address"):
            output_folder(folder)


@pytest.mark.parametrize(
    "run",
    [
        lambda out: demo.run(DemoConfig(out=out, serve=False)),
        lambda out: suite.run(SuiteConfig(out=out)),
        lambda out: encoder.run(encoder.PretrainEncoderConfig(out=out)),
        lambda out: judge.run(judge.PretrainJudgeConfig(out=out)),
        lambda out: judge.run(judge.PretrainJudgeConfig(out=f"{out}-2", work=out)),
    ],
    ids=["demo", "suite", "encoder", "judge", "work of judge"],
)
def test_output_that_is_a_file_is_refused_first(run, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="it is a file"):
        run(str(tmp_path / "out"))


def test_photographs_refuse_an_output_that_is_a_file_before_they_load_a_model(tmp_path, monkeypatch):
    (tmp_path / "out").touch()
    monkeypatch.setattr(photographs, "read_photographs", lambda folder: None)
    with pytest.raises(UserError, match="it is a file"):
        photographs.run(photographs.PhotographsConfig(folder="", out=str(tmp_path / "out")))


def test_demo_refuses_a_taken_port_before_it_draws(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"Cannot listen on 127.0.0.1:{port}"):
            demo.run(DemoConfig(out=str(tmp_path / "demo"), port=port))
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("model", ["encoder", "rephraser", "judge"])
def test_demo_refuses_a_missing_model_before_it_draws(model, tmp_path):
    out, change = tmp_path / "out", f"{model}.model={tmp_path}/none"
    with pytest.raises(UserError, match=f"model.* '{tmp_path}/none' (is not a folder|does not exist)"):
        demo.run(DemoConfig(out=str(out), serve=False, set=(change,)))
    assert not any(out.iterdir())


def test_suite_refuses_a_missing_model_before_it_draws(tmp_path):
    out, change = tmp_path / "out", f"judge.model={tmp_path}/none"
    with pytest.raises(UserError, match=f"the model folder '{tmp_path}/none' does not exist"):
        suite.run(SuiteConfig(out=str(out), set=(change,)))
    assert not any(out.iterdir())


def test_checkpoints_to_start_from_or_to_measure_must_exist(tmp_path):
    out, missing = str(tmp_path / "out"), str(tmp_path / "none")
    with pytest.raises(UserError, match="holds no checkpoint"):
        judge.run(judge.PretrainJudgeConfig(out=out, work=out, init=missing))
    with pytest.raises(UserError, match="has the width 192: give --text-width 192"):
        judge.check_init(f"{MINI}/judge", 64)
    few = {"num_eval_queries": 2, "out": out}
    with pytest.raises(UserError, match="holds no checkpoint"):
        rephraser.run(rephraser.PretrainRephraserConfig(init=missing, **few))
    with pytest.raises(UserError, match="has no card"):
        rephraser.run(rephraser.PretrainRephraserConfig(measure=missing, **few))


def test_benchmarks_refuse_what_they_cannot_measure_before_ray_starts(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        bench_ingest.run(bench_ingest.BenchIngestConfig(source=str(tmp_path / "none")))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "one.jpg")
    with pytest.raises(UserError, match=r"has 1 images, but the first .* only warm up"):
        bench_ingest.run(bench_ingest.BenchIngestConfig(source=str(tmp_path)))
    with pytest.raises(UserError, match="does not use the language model"):
        bench_label.run(bench_label.BenchLabelConfig(models=("lmm", "llm"), style="original"))
    one_image = ("label.rows=1", "label.columns=1")
    with pytest.raises(UserError, match="a pair needs two images"):
        bench_align.run(bench_align.BenchAlignConfig(set=one_image))
