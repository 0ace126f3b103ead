"""`kallos bench label`: the label stages against vLLM's own offline `LLM`, requests per second.

    python -m lab.bench.label.job --num-requests 1024 --num-runs 3

Both sides answer the same prompts with the same model, engine arguments and sampling, in turns, each turn
with prompts that neither engine has seen. Our side is a Ray Data stage of the label pipeline, rows in to rows
out; the other is one `LLM.chat` call over all the prompts. Start-up is left out of both: each answers one
batch before the clock starts.
"""

import shutil
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import ray
import ray.data

from actors.engine import Request, conversation, make_engine
from actors.rephraser import MODEL_STYLES, Rephrase, prompt, schema
from actors.stages import add_stage
from cluster import command, session
from cluster.errors import UserError
from cluster.profile import LanguageModel
from lab.bench.label.config import BenchLabelConfig
from lab.bench.label.judging import judge_side
from lab.bench.label.side import Side
from lab.bench.report import comparison
from lab.machine import machine
from lab.pretrain.rephraser.training_chats import draw_query


class BareVllm:
    """vLLM's offline `LLM` in a process of its own, called as its documentation shows."""

    def __init__(self, model: LanguageModel):
        self.engine = make_engine(model)

    def chat(self, requests: Sequence[Request]) -> float:
        """Seconds that one `LLM.chat` call takes for all the requests."""
        chats = [conversation(request) for request in requests]
        sampling = [self.engine.sampling(request) for request in requests]
        started = time.perf_counter()
        self.engine.llm.chat(chats, sampling_params=sampling, use_tqdm=False)
        return time.perf_counter() - started


def stage_seconds(side: Side, rows: pa.Table) -> float:
    """Seconds from the end of the first batch (the warm-up) to the end of the last, as the driver sees them.

    One block a batch, as a stage downstream of a reader has them.
    """
    size = side.batch_size
    blocks = [rows.slice(start, size) for start in range(0, rows.num_rows, size)]
    answered = add_stage(
        ray.data.from_arrow(blocks),
        side.actor,
        dict(side.arguments),
        side.model.stage,
        batch_format=side.batch_format,
        batch_size=size,
    )
    arrivals = [time.perf_counter() for _ in answered.iter_batches(batch_size=None, prefetch_batches=0)]
    return arrivals[-1] - arrivals[0]


def warm_up_rows(side: Side, seed: int) -> pa.Table:
    """Rows of exactly one call: one fewer, and the first call would take a row whose requests are counted."""
    per_row = len(side.requests(side.rows(seed, 1)))
    rows = side.rows(seed, side.batch_size * per_row)
    assert rows.num_rows == side.batch_size, f"{rows.num_rows} rows, a call takes {side.batch_size}"
    return rows


def measure(side: Side, num_requests: int, num_runs: int, seed: int) -> dict[str, list[float]]:
    """Requests per second of both sides, turn by turn."""
    stage = side.model.stage
    bare = ray.remote(num_cpus=stage.num_cpus, num_gpus=stage.num_gpus)(BareVllm).remote(side.model)
    warm_up = warm_up_rows(side, seed)
    ray.get(bare.chat.remote(side.requests(warm_up)))
    rates: dict[str, list[float]] = {"kallos": [], "vllm": []}
    for turn in range(num_runs):
        rows = side.rows(seed + 1 + turn, num_requests)
        requests = side.requests(rows)
        rates["kallos"].append(len(requests) / stage_seconds(side, pa.concat_tables([warm_up, rows])))
        rates["vllm"].append(len(requests) / ray.get(bare.chat.remote(requests)))
    ray.kill(bare)
    return rates


def rephrase_side(model: LanguageModel, style: str) -> Side:
    """The rephrase stage. Raises UserError for a style that asks no model."""
    if style not in MODEL_STYLES:
        raise UserError(f"style {style!r} asks no model: measure one of {', '.join(MODEL_STYLES)}.")

    def rows(seed: int, num_rows: int) -> pa.Table:
        rng = np.random.default_rng([seed, 7])
        return pa.table({"query": [draw_query(rng).text for _ in range(num_rows)]})

    def requests(table: pa.Table) -> list[Request]:
        return [Request(prompt(q, style), schema=schema(style)) for q in table["query"].to_pylist()]

    return Side(model, Rephrase, {"language_model": model, "style": style}, rows, requests)


def run(config: BenchLabelConfig) -> dict:
    """Measures each stage; returns the benchmark's line."""
    profile, _ = command.settings(config)
    style = command.merged(profile.label, config).style
    makers = {
        "llm": lambda: rephrase_side(profile.rephraser, style),
        "lmm": lambda: judge_side(profile.judge),
    }
    session.connect(profile)
    rates = {name: rates_of(makers[name](), config) for name in config.models}
    return {
        "bench": "label",
        "ratios": {
            f"label_{name}_over_vllm": comparison(found["kallos"], found["vllm"])
            for name, found in rates.items()
        },
        "figures": {
            **{f"{name}_requests_per_s": found for name, found in rates.items()},
            "num_requests": config.num_requests,
        },
        "machine": machine(),
    }


def rates_of(side: Side, config: BenchLabelConfig) -> dict[str, list[float]]:
    """`measure` of one stage, after a look at the resources; its files are removed."""
    session.require({"stage": side.model.stage, "bare vllm": side.model.stage})
    try:
        return measure(side, config.num_requests, config.num_runs, config.seed)
    finally:
        if side.folder:
            shutil.rmtree(side.folder, ignore_errors=True)
