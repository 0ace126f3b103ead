"""The whole job of `kallos label`: checks everything early, runs the pipeline, counts."""

import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from ray.exceptions import RayError

from actors.engine import model_path
from actors.judge import identity as prompts_identity
from actors.stages import add_stage, find_user_error
from actors.rephraser import MODEL_STYLES, Rephrase
from actors.scorers import LinearHead, PromptPairs, RankAxis, Scorer
from cluster import command, session
from cluster.errors import UserError
from cluster.profile import LanguageModel, Profile, Stage
from cluster.schemas import near_ties
from cluster.table_files import read_table
from cluster.tables import EncoderRecord, Store, embeddings_table
from jobs.label.config import LabelConfig
from jobs.label.pairs import Grid
from jobs.label.queries import draw_queries, read_queries
from jobs.label.rerank import Order, Rerank
from jobs.label.retrieve import Retrieve
from jobs.label.write import Run, Write

# Identifies weights without reading gigabytes: training changes the first and last megabyte of every file.
EDGE_BYTES = 1 << 20
WRITER = Stage(min_actors=1, max_actors=1, num_cpus=0.5, batch_size=1)


@dataclass(frozen=True)
class Plan:
    """Everything that is settled before work starts."""

    profile: Profile
    store: Store
    encoder: EncoderRecord
    style: str
    order: Order
    top_k: int
    where: str | None
    queries_per_call: int
    run: Run


def run(config: LabelConfig) -> dict:
    """Label the queries that this run has not labelled yet. Raises UserError before any work."""
    started = time.monotonic()
    plan = make_plan(config)
    queries = wanted_queries(config, plan)
    left = not_done(plan.store, plan.run.run_id, queries)
    begun = time.monotonic()
    num_before = count_preferences(plan, queries)["num_preferences"]
    counts = label_queries(plan, config, left) if left else Counts()
    stored = count_preferences(plan, queries)
    if "://" not in plan.store.uri:
        command.save_config(config, Path(plan.store.uri) / "runs" / f"label-{plan.run.run_id}")
    return {
        "run_id": plan.run.run_id,
        "encoder": plan.encoder.encoder,
        "style": plan.style,
        "source": plan.order.source,
        "num_queries": len(queries),
        "num_queries_before": len(queries) - len(left),
        "num_queries_labelled": len(left) - counts.num_errors,
        **stored,
        "num_new_preferences": stored["num_preferences"] - num_before,
        **asdict(counts),
        "seconds": {"start": begun - started, "total": time.monotonic() - started},
    }


@dataclass
class Counts:
    """What this call could not do. num_errors: queries without labels."""

    num_errors: int = 0
    num_failed_answers: int = 0

    def add(self, done: pa.Table) -> None:
        """Count the rows of `DONE`, and tell the first words of each error."""
        for row in done.to_pylist():
            self.num_errors += bool(row["error"])
            self.num_failed_answers += row["num_failed_answers"]
            if row["error"]:
                print(f"no labels for {row['query']!r}: {row['error'][:200]}", file=sys.stderr)


def count_preferences(plan: Plan, queries: list[str]) -> dict[str, int]:
    """What the table holds of this run for these queries, whichever call wrote it."""
    if not plan.store.exists("preferences"):
        return {"num_preferences": 0, "num_near_ties": 0, "num_inconsistent": 0}
    columns = ["query", "p_winner", "consistent"]
    rows = plan.store.read("preferences", columns, f"run_id = '{plan.run.run_id}'")
    rows = rows.filter(pc.is_in(rows["query"], pa.array(queries, pa.string())))
    return {
        "num_preferences": rows.num_rows,
        "num_near_ties": int(near_ties(rows["p_winner"].to_numpy()).sum()),
        "num_inconsistent": pc.sum(pc.invert(rows["consistent"])).as_py() or 0,
    }


def make_plan(config: LabelConfig) -> Plan:
    """Settle models, shapes and the run's name. Raises UserError for whatever cannot work."""
    profile, store = command.settings(config)
    encoder = store.encoder(config.encoder)
    store.open(embeddings_table(encoder.encoder))
    settings = command.merged(profile.label, config)
    style, source = settings.style, settings.source
    semantic = config.semantic or ("encoder" if source == "scorer" else settings.semantic)
    grid = Grid(settings.rows, settings.columns, settings.stride)
    if grid.num_images < 2:
        raise UserError("rows x columns is 1: two images are needed to prefer one.")
    order = Order(source=source, semantic=semantic, grid=grid)
    _check_scorer(config, source)
    judge = judged_by(profile, order, config.scorer)
    determines = {
        "encoder": encoder.encoder,
        "style": style,
        "rephraser": rephrased_by(profile.rephraser) if style in MODEL_STYLES else [],
        "judge": judge,
        "image_px": (profile.judge.image_px or 0) if order.needs_judge else 0,
        "prompts": prompts_identity(),
        "order": asdict(order),
        "scorer": [config.scorer, _digest_file(config.ratings)] if source == "scorer" else [],
        "top_k": settings.top_k,
        "where": config.where or "",
    }
    run = Run(run_id=short_hash(determines), style=style, source=source, judge=judge, encoder=encoder.encoder)
    where, size = config.where, config.queries_per_call
    return Plan(profile, store, encoder, style, order, settings.top_k, where, size, run)


def rephrased_by(model: LanguageModel) -> list[Any]:
    """The rephraser, and how it is sampled: with either changed its texts are others."""
    return [model_identity(model), model.temperature, model.max_tokens]


def judged_by(profile: Profile, order: Order, scorer: str) -> str:
    """Who ordered the images: the scorer for beauty if one did, the judge for whatever it was asked."""
    judges = [f"scorer:{scorer}"] if order.source == "scorer" else []
    return "+".join([*judges, model_identity(profile.judge)] if order.needs_judge else judges)


def wanted_queries(config: LabelConfig, plan: Plan) -> list[str]:
    """The queries of the file, or drawn. Raises UserError when there are none, or no image to order."""
    try:
        num_images = plan.store.count(embeddings_table(plan.encoder.encoder), plan.where or None)
    except ValueError as error:
        raise UserError(f"The filter --where {plan.where!r} cannot be used: {error}") from None
    if num_images < 2:
        raise UserError(
            f"Only {num_images} images are embedded by {config.encoder!r} where {plan.where or 'anywhere'}: "
            "two are needed; run `kallos ingest`, or change --where."
        )
    if config.queries:
        return read_queries(config.queries, config.num_queries)
    return draw_queries(plan.store, plan.encoder.encoder, plan.where, config.num_queries, config.seed)


def not_done(store: Store, run_id: str, queries: list[str]) -> list[str]:
    """The queries that `rankings` does not hold for this run."""
    if not store.exists("rankings"):
        return queries
    done = set(store.read("rankings", ["query"], f"run_id = '{run_id}'")["query"].to_pylist())
    return [query for query in queries if query not in done]


def label_queries(plan: Plan, config: LabelConfig, queries: list[str]) -> Counts:
    """Run the pipeline over the queries, with a line of progress on stderr."""
    session.connect(plan.profile)
    session.require(stages(plan))
    counts, num_done = Counts(), 0
    try:
        for done in pipeline(plan, queries, make_scorer(config, plan)).iter_batches(
            batch_size=None, batch_format="pyarrow"
        ):
            counts.add(done)
            num_done += done.num_rows
            print(f"labelled {num_done}/{len(queries)} queries", file=sys.stderr, flush=True)
    except RayError as error:
        raise find_user_error(error) or error from None
    return counts


def stages(plan: Plan) -> dict[str, Stage]:
    """The resources of each stage. Only stages that hold an engine reserve GPUs: encoding a few queries and
    searching LanceDB are light, and a scorer is numpy.
    """
    profile = plan.profile
    on_cpu = profile.encoder.stage.without_gpus()
    rephraser = profile.rephraser.stage
    rerank = profile.judge.stage if plan.order.needs_judge else on_cpu
    return {
        "rephrase": rephraser if plan.style in MODEL_STYLES else rephraser.without_gpus(),
        "retrieve": on_cpu,
        "rerank": rerank,
        "write": WRITER,
    }


def pipeline(plan: Plan, queries: list[str], scorer: Scorer | None) -> ray.data.Dataset:
    """Queries -> rows of `DONE`, one for each query, in any order."""
    resources = stages(plan)
    profile = plan.profile
    rephrase = {"language_model": profile.rephraser, "style": plan.style}
    retrieve = {
        "store": plan.store,
        "encoder": profile.encoder.model_copy(update={"model": plan.encoder.checkpoint}),
        "fingerprint": plan.encoder.encoder,
        "top_k": plan.top_k,
        "where": plan.where,
        "with_vectors": plan.order.source == "scorer",
    }
    rerank = {"store": plan.store, "order": plan.order, "judge": profile.judge, "scorer": scorer}
    write = {"store": plan.store, "run": plan.run}
    # A block a batch: the pool's engines work on different blocks at the same time.
    size = profile.rephraser.stage.batch_size
    table = pa.table({"query": queries})
    rows = ray.data.from_arrow([table.slice(start, size) for start in range(0, len(queries), size)])
    rows = add_stage(rows, Rephrase, rephrase, resources["rephrase"], batch_format="numpy")
    rows = add_stage(rows, Retrieve, retrieve, resources["retrieve"])
    # Small blocks from here on: what is ready is written, so that a killed run loses little.
    rows = rows.repartition(target_num_rows_per_block=plan.queries_per_call)
    rows = add_stage(rows, Rerank, rerank, resources["rerank"], batch_size=plan.queries_per_call)
    return add_stage(rows, Write, write, resources["write"], batch_size=plan.queries_per_call)


def make_scorer(config: LabelConfig, plan: Plan) -> Scorer | None:
    """The scorer that `source: scorer` asks for, fitted or encoded; None for the others."""
    if plan.order.source != "scorer":
        return None
    if config.scorer == "prompts":
        from actors.encoder import Encoder

        encoder = Encoder.load(plan.encoder.checkpoint, num_threads=plan.profile.encoder.num_threads)
        return PromptPairs.of(encoder.encode_texts, encoder.temperature)
    table = plan.store.read(embeddings_table(plan.encoder.encoder), ["image_id", "vector"])
    vectors = dict(zip(table["image_id"].to_pylist(), table["vector"].to_pylist(), strict=True))
    rated = read_table(config.ratings, ("image_id", "rating")).to_pylist()
    known = [row for row in rated if row["image_id"] in vectors]
    learner = RankAxis if config.scorer == "axis" else LinearHead
    try:
        return learner.fit(
            np.array([vectors[row["image_id"]] for row in known], dtype=np.float32),
            np.array([row["rating"] for row in known], dtype=np.float64),
        )
    except ValueError as error:
        raise UserError(f"The ratings {config.ratings!r} cannot be learned from: {error}") from None


def _check_scorer(config: LabelConfig, source: str) -> None:
    if source == "scorer" and config.scorer != "prompts" and not Path(config.ratings or "").is_file():
        raise UserError(
            f"Scorer {config.scorer!r} is fitted on ratings, and there is no file {config.ratings!r}: "
            "give one with --ratings."
        )


def model_identity(model: LanguageModel) -> str:
    """The model's name, with a hash of its files when it is a folder: what `judge` says in the tables."""
    folder = Path(model_path(model.model))
    if not folder.is_dir():
        return model.model
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix in (".json", ".jinja", ".safetensors", ".bin"):
            digest.update(f"{path.name} {path.stat().st_size}".encode())
            digest.update(_edges(path))
    return f"{folder.name}@{digest.hexdigest()[:8]}"


def _edges(path: Path) -> bytes:
    with path.open("rb") as file:
        first = file.read(EDGE_BYTES)
        file.seek(max(0, path.stat().st_size - EDGE_BYTES))
        return first + file.read(EDGE_BYTES)


def _digest_file(path: str | None) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] if path else ""


def short_hash(value: Any) -> str:
    """16 hex characters that stand for a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
