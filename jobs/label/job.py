"""The job of `kallos label`: checks all inputs before any work, runs the pipeline, counts the results."""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from actors.cascade import Retrieval
from actors.encoder import load_registered, require_checkpoint
from actors.engine import check_model
from actors.judge import identity as prompts_identity
from actors.rephraser import MODEL_STYLES
from actors.scorers import LinearHead, PromptPairs, RankAxis, Scorer
from actors.stages import ENGINE_RESTARTS, add_stage, plain_errors
from cluster import command, session, terminal
from cluster.errors import JobFailure, UserError, shown
from cluster.profile import Stage
from cluster.schemas import near_ties
from cluster.table_files import number, read_table, text
from cluster.tables import EncoderRecord, Store, embeddings_table
from jobs.label.config import LabelConfig
from jobs.label.identity import file_hash, judge_identity, rephraser_identity, short_hash
from jobs.label.pairs import Grid
from jobs.label.queries import draw_queries, read_queries
from jobs.label.rerank import RankingRule, Rerank
from jobs.label.write import Provenance, Write

NUM_SHOWN = 10  # errors that are shown while the job runs
WRITER = Stage(min_actors=1, max_actors=1, num_cpus=0.5, batch_size=1)


@dataclass(frozen=True)
class LabelRun:
    """Everything that is decided before work starts."""

    retrieval: Retrieval
    rule: RankingRule
    queries_per_call: int
    provenance: Provenance

    @property
    def store(self) -> Store:
        """Where the run reads and writes."""
        return self.retrieval.store

    @property
    def encoder(self) -> EncoderRecord:
        """The reference encoder."""
        return self.retrieval.encoder

    @property
    def stages(self) -> dict[str, Stage]:
        """The resources of each stage. Only a stage that holds an engine takes a GPU: a scorer is numpy."""
        profile = self.retrieval.profile
        rerank = profile.judge.stage if self.rule.needs_judge else profile.encoder.stage.without_gpus()
        return {**self.retrieval.stages, "rerank": rerank, "write": WRITER}


def run(config: LabelConfig) -> dict:
    """Label the queries that this run has not labelled yet. Raises UserError before any work is done."""
    started = time.monotonic()
    label_run = prepare_run(config)
    store, provenance = label_run.store, label_run.provenance
    queries = requested_queries(config, label_run)
    left = unlabelled(store, provenance.run_id, queries)
    begun = time.monotonic()
    num_before = count_preferences(label_run, queries)["num_preferences"]
    counts = label_queries(label_run, config, left) if left else Counts()
    stored = count_preferences(label_run, queries)
    if "://" not in store.uri:
        command.save_config(config, Path(store.uri) / "runs" / f"label-{provenance.run_id}")
    counts.report(len(queries), len(queries) - len(left), store)
    return {
        "run_id": provenance.run_id,
        "encoder": provenance.encoder,
        "style": provenance.style,
        "source": provenance.source,
        "num_queries": len(queries),
        "num_queries_before": len(queries) - len(left),
        "num_queries_labelled": len(left) - counts.num_errors,
        **stored,
        "num_new_preferences": stored["num_preferences"] - num_before,
        **counts.figures(),
        "seconds": {"start": begun - started, "total": time.monotonic() - started},
    }


@dataclass
class Counts:
    """What failed in this invocation.

    num_errors: queries without labels. unreadable: the images that were left out.
    """

    num_errors: int = 0
    num_failed_answers: int = 0
    first_error: str = ""
    unreadable: set[str] = field(default_factory=set)

    def add(self, done: pa.Table) -> None:
        """Count the rows of `DONE`, and show the beginning of the first errors."""
        for row in done.to_pylist():
            self.num_failed_answers += row["num_failed_answers"]
            self.unreadable.update(image["image_id"] for image in row["unreadable"])
            if row["error"]:
                self.num_errors += 1
                self.first_error = self.first_error or row["error"]
                if self.num_errors <= NUM_SHOWN:
                    terminal.say(f"label: no labels for {shown(row['query'])}: {row['error'][:200]}")

    def report(self, num_queries: int, num_before: int, store: Store) -> None:
        """Say what failed. Raises JobFailure when no query of this run has labels."""
        where = f"table rejects of {store.uri} has the reasons"
        if self.num_errors and self.num_errors == num_queries - num_before and not num_before:
            raise JobFailure(
                f"None of the {num_queries} queries was labelled, and the judge gave no answer "
                f"{self.num_failed_answers} times; {where}, the first is: {self.first_error}."
            )
        if self.num_errors:
            terminal.say(f"label: {self.num_errors} of {num_queries} queries have no labels: {where}")
        if self.unreadable:
            terminal.say(f"label: {len(self.unreadable)} images could not be read and were left out: {where}")

    def figures(self) -> dict[str, int]:
        """The counts for the report."""
        return {
            "num_errors": self.num_errors,
            "num_failed_answers": self.num_failed_answers,
            "num_unreadable_images": len(self.unreadable),
        }


def count_preferences(label_run: LabelRun, queries: list[str]) -> dict[str, int]:
    """Rows of this run for these queries, from any invocation."""
    if not label_run.store.exists("preferences"):
        return {"num_preferences": 0, "num_near_ties": 0, "num_inconsistent": 0}
    columns = ["query", "p_winner", "consistent"]
    rows = label_run.store.read("preferences", columns, f"run_id = '{label_run.provenance.run_id}'")
    rows = rows.filter(pc.is_in(rows["query"], pa.array(queries, pa.string())))
    return {
        "num_preferences": rows.num_rows,
        "num_near_ties": int(near_ties(rows["p_winner"].to_numpy()).sum()),
        "num_inconsistent": pc.sum(pc.invert(rows["consistent"])).as_py() or 0,
    }


def prepare_run(config: LabelConfig) -> LabelRun:
    """Resolve models, shapes and the run's name. Raises UserError for options that cannot work."""
    profile, store = command.settings(config)
    encoder = store.encoder(config.encoder)
    store.open(embeddings_table(encoder.encoder))
    settings = command.merged(profile.label, config)
    style, source = settings.style, settings.source
    semantic = config.semantic or ("encoder" if source == "scorer" else settings.semantic)
    grid = Grid(settings.rows, settings.columns, settings.stride)
    if grid.num_images < 2:
        raise UserError("rows x columns is 1, but a preference needs two images: raise one of them.")
    rule = RankingRule(source=source, semantic=semantic, grid=grid)
    if source == "scorer" and config.scorer != "prompts":
        read_ratings(config)  # to refuse bad ones before any work
    scorer = config.scorer if source == "scorer" else None
    local = profile.ray.address == "local"  # elsewhere, the machines of the actors have to find the models
    if local:
        require_checkpoint(encoder)
    if style in MODEL_STYLES:
        check_model(profile.rephraser, on_hub=local)
    if rule.needs_judge:
        check_model(profile.judge, on_hub=local)
    judge = judge_identity(profile.judge if rule.needs_judge else None, scorer)
    determines = {
        "encoder": encoder.encoder,
        "style": style,
        "rephraser": rephraser_identity(profile.rephraser) if style in MODEL_STYLES else [],
        "judge": judge,
        "image_px": (profile.judge.image_px or 0) if rule.needs_judge else 0,
        "prompts": prompts_identity(),
        "order": asdict(rule),
        "scorer": [scorer, file_hash(config.ratings)] if scorer else [],
        "top_k": settings.top_k,
        "where": config.where or "",
    }
    retrieval = Retrieval(
        profile, store, encoder, style, settings.top_k, config.where, with_vectors=scorer is not None
    )
    provenance = Provenance(short_hash(determines), style, source, judge, encoder.encoder)
    return LabelRun(retrieval, rule, config.queries_per_call, provenance)


def requested_queries(config: LabelConfig, label_run: LabelRun) -> list[str]:
    """The file's queries, or drawn ones. Raises UserError for no query, or fewer than two images."""
    where, fingerprint = config.where, label_run.encoder.encoder
    num_images = label_run.store.count(embeddings_table(fingerprint), where)
    if num_images < 2:
        raise UserError(
            f"Encoder {shown(config.encoder)} has embedded {num_images} images"
            f"{f' where {shown(where)}' if where else ''}, but two are needed: run `kallos ingest`, or "
            "change --where."
        )
    if config.queries:
        return read_queries(config.queries, config.num_queries)
    return draw_queries(label_run.store, fingerprint, where, config.num_queries, config.seed)


def unlabelled(store: Store, run_id: str, queries: list[str]) -> list[str]:
    """The queries that have no row in `rankings` for this run."""
    if not store.exists("rankings"):
        return queries
    done = set(store.read("rankings", ["query"], f"run_id = '{run_id}'")["query"].to_pylist())
    return [query for query in queries if query not in done]


def label_queries(label_run: LabelRun, config: LabelConfig, queries: list[str]) -> Counts:
    """Run the pipeline over the queries, with progress on stderr."""
    session.connect(label_run.retrieval.profile)
    session.require(label_run.stages)
    rows = pipeline(label_run, queries, make_scorer(config, label_run))
    counts, num_done = Counts(), 0
    with plain_errors(), terminal.progress("label", "queries", len(queries)) as update:
        for done in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
            assert isinstance(done, pa.Table)
            counts.add(done)
            num_done += done.num_rows
            update(num_done, errors=counts.num_errors)
    return counts


def pipeline(label_run: LabelRun, queries: list[str], scorer: Scorer | None) -> ray.data.Dataset:
    """Queries -> rows of `DONE`, one for each query, in any order."""
    store, stages, size = label_run.store, label_run.stages, label_run.queries_per_call
    judge = label_run.retrieval.profile.judge
    rerank = {"store": store, "rule": label_run.rule, "judge": judge, "scorer": scorer}
    write = {"store": store, "provenance": label_run.provenance}
    rows = label_run.retrieval.rows(queries)
    # Small blocks from here on: finished queries are written early, so that a killed run loses little.
    rows = rows.repartition(target_num_rows_per_block=size)
    rows = add_stage(rows, Rerank, rerank, stages["rerank"], batch_size=size, max_restarts=ENGINE_RESTARTS)
    return add_stage(rows, Write, write, stages["write"], batch_size=size)


def make_scorer(config: LabelConfig, label_run: LabelRun) -> Scorer | None:
    """The scorer of source `scorer`: encoded prompts, or fitted on ratings; None for other sources."""
    if label_run.rule.source != "scorer":
        return None
    if config.scorer == "prompts":
        num_threads = label_run.retrieval.profile.encoder.num_threads
        encoder = load_registered(label_run.encoder, num_threads=num_threads)
        return PromptPairs.of(encoder.encode_texts, encoder.temperature)
    table = label_run.store.read(embeddings_table(label_run.encoder.encoder), ["image_id", "vector"])
    vectors = dict(zip(table["image_id"].to_pylist(), table["vector"].to_pylist(), strict=True))
    known = [row for row in read_ratings(config) if row["image_id"] in vectors]
    scorer = RankAxis if config.scorer == "axis" else LinearHead
    try:
        return scorer.fit(
            np.array([vectors[row["image_id"]] for row in known], dtype=np.float32),
            np.array([row["rating"] for row in known], dtype=np.float64),
        )
    except ValueError as error:
        raise UserError(f"No scorer can be fitted on the ratings {shown(config.ratings)}: {error}") from None


def read_ratings(config: LabelConfig) -> list[dict]:
    """The table `--ratings`. Raises UserError when it has no row, or a row without a rating."""
    if not config.ratings:
        raise UserError(
            f"Scorer {config.scorer!r} is fitted on ratings: give a table of them with --ratings."
        )
    rows = read_table(config.ratings, {"image_id": text, "rating": number})
    without = [row["image_id"] for row in rows if row["rating"] is None]
    if without or not rows:
        fault = f"no rating for the image {shown(without[0])}" if without else "no row"
        raise UserError(f"The ratings {shown(config.ratings)} have {fault}: give a rating in each row.")
    return rows
