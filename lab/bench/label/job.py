"""Compares the stages of the label pipeline with vLLM's own offline `LLM`, in requests per second.

    kallos bench label --num-requests 1024 --num-runs 3

Both sides answer the same prompts with the same model, engine arguments and sampling, in turns, and every
turn has new prompts. Our side is a Ray Data stage of the label pipeline, from rows to rows; the other side is
one `LLM.chat` call with all the prompts. Start-up is not measured: each side answers one batch beforehand.
"""

import shutil
import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
import ray
import ray.data

from actors.engine import Request, VllmOffline, conversation, make_engine
from actors.rephraser import MODEL_STYLES, Rephrase, prompt, schema
from actors.stages import add_stage
from cluster import command, session
from cluster.errors import UserError
from cluster.profile import LanguageModel
from lab.bench.label.config import BenchLabelConfig
from lab.bench.label.judge_stage import judge_stage
from lab.bench.label.measured_stage import MeasuredStage
from lab.bench.report import comparison, report
from lab.pretrain.rephraser.training_chats import draw_query


class BareVllm:
    """vLLM's offline `LLM` in a process of its own, used as in its documentation."""

    def __init__(self, model: LanguageModel):
        self.engine = cast(VllmOffline, make_engine(model))

    def chat(self, requests: Sequence[Request]) -> float:
        """Seconds of one `LLM.chat` call with all the requests."""
        chats = [conversation(request) for request in requests]
        sampling = [self.engine.sampling(request) for request in requests]
        started = time.perf_counter()
        self.engine.llm.chat(cast(Any, chats), sampling_params=sampling, use_tqdm=False)
        return time.perf_counter() - started


def stage_seconds(measured: MeasuredStage, rows: pa.Table) -> float:
    """Seconds on the driver from the end of the first batch, the warm-up, to the end of the last batch.

    Every batch is a block of its own, as after a reader.
    """
    size = measured.batch_size
    blocks: list[Any] = [rows.slice(start, size) for start in range(0, rows.num_rows, size)]
    results = add_stage(
        ray.data.from_arrow(blocks),
        measured.actor,
        dict(measured.arguments),
        measured.model.stage,
        batch_format=measured.batch_format,
        batch_size=size,
    )
    arrivals = [time.perf_counter() for _ in results.iter_batches(batch_size=None, prefetch_batches=0)]
    return arrivals[-1] - arrivals[0]


def warm_up_rows(measured: MeasuredStage, seed: int) -> pa.Table:
    """Rows of exactly one call; with fewer, the first call would include rows that are to be measured."""
    requests_per_row = len(measured.requests_of(measured.make_rows(seed, 1)))
    rows = measured.make_rows(seed, measured.batch_size * requests_per_row)
    assert rows.num_rows == measured.batch_size, f"{rows.num_rows} rows, a call takes {measured.batch_size}"
    return rows


def measure(measured: MeasuredStage, num_requests: int, num_runs: int, seed: int) -> dict[str, list[float]]:
    """Requests per second of both sides, one value for each turn."""
    stage = measured.model.stage
    bare: Any = ray.remote(num_cpus=stage.num_cpus, num_gpus=stage.num_gpus)(BareVllm).remote(measured.model)
    warm_up = warm_up_rows(measured, seed)
    ray.get(bare.chat.remote(measured.requests_of(warm_up)))
    rates: dict[str, list[float]] = {"kallos": [], "vllm": []}
    for turn in range(num_runs):
        rows = measured.make_rows(seed + 1 + turn, num_requests)
        requests = measured.requests_of(rows)
        rates["kallos"].append(len(requests) / stage_seconds(measured, pa.concat_tables([warm_up, rows])))
        bare_seconds: Any = ray.get(bare.chat.remote(requests))
        rates["vllm"].append(len(requests) / bare_seconds)
    ray.kill(bare)
    return rates


def check_style(style: str) -> None:
    """Raise UserError for a style that does not use the language model."""
    if style not in MODEL_STYLES:
        raise UserError(
            f"The style {style!r} does not use the language model: measure one of {', '.join(MODEL_STYLES)}."
        )


def rephrase_stage(model: LanguageModel, style: str) -> MeasuredStage:
    """The rephrase stage."""

    def make_rows(seed: int, num_rows: int) -> pa.Table:
        rng = np.random.default_rng([seed, 7])
        return pa.table({"query": [draw_query(rng).text for _ in range(num_rows)]})

    def requests_of(rows: pa.Table) -> list[Request]:
        return [
            Request(prompt(q, style), schema=schema(style))
            for q in cast(list[str], rows["query"].to_pylist())
        ]

    arguments = {"language_model": model, "style": style}
    return MeasuredStage(model, Rephrase, arguments, make_rows, requests_of)


def run(config: BenchLabelConfig) -> dict:
    """Measure each stage; the ratios are of requests per second."""
    profile, _ = command.settings(config)
    style = command.merged(profile.label, config).style
    makers = {
        "llm": lambda: rephrase_stage(profile.rephraser, style),
        "lmm": lambda: judge_stage(profile.judge),
    }
    if "llm" in config.models:
        check_style(style)
    session.connect(profile)
    rates = {name: rates_of(makers[name](), config) for name in config.models}
    ratios = {
        f"label_{name}_over_vllm": comparison(of_sides["kallos"], of_sides["vllm"])
        for name, of_sides in rates.items()
    }
    figures = {f"{name}_requests_per_s": of_sides for name, of_sides in rates.items()}
    return report("label", ratios, {**figures, "num_requests": config.num_requests})


def rates_of(measured: MeasuredStage, config: BenchLabelConfig) -> dict[str, list[float]]:
    """`measure` one stage, after checking that there are enough resources; its files are removed."""
    session.require({"stage": measured.model.stage, "bare vllm": measured.model.stage})
    try:
        return measure(measured, config.num_requests, config.num_runs, config.seed)
    finally:
        if measured.folder:
            shutil.rmtree(measured.folder, ignore_errors=True)
