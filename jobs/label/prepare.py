"""What labelling decides before any work: the models, the shape of the grid, the run's name, the queries."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import ray.data

from actors.cascade import Retrieval
from actors.encoder import load_registered, require_checkpoint
from actors.engine import check_model
from actors.judge import identity as prompts_identity
from actors.rephraser import MODEL_STYLES
from actors.scorers import LinearHead, PromptPairs, RankAxis, Scorer
from actors.stages import ENGINE_RESTARTS, add_stage
from cluster import command, session
from cluster.errors import UserError, shown
from cluster.profile import Stage
from cluster.table_files import number, read_table, text
from cluster.tables import EncoderRecord, Store, embeddings_table
from jobs.label.config import LabelConfig
from jobs.label.identity import file_hash, judge_identity, rephraser_identity, short_hash
from jobs.label.pairs import Grid
from jobs.label.queries import draw_queries, read_queries
from jobs.label.rerank import RankingRule, Rerank
from jobs.label.write import Provenance, Write

WRITER = Stage(min_actors=1, max_actors=1, num_cpus=0.5, batch_size=1)
NUM_ASKED = 4  # pairs of a query about which the judge is asked outright, to calibrate on


@dataclass(frozen=True)
class LabelRun:
    """Everything that is decided before work starts.

    num_asked: number of pairs of a query about which the judge is asked outright.
    """

    config: LabelConfig
    retrieval: Retrieval
    rule: RankingRule
    provenance: Provenance
    num_asked: int = NUM_ASKED

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

    def connect(self) -> None:
        """Connect to Ray. Raises UserError when its cluster has no room for all stages."""
        session.connect(self.retrieval.profile)
        session.require(self.stages)

    def retrieved(self, queries: Sequence[str]) -> ray.data.Dataset:
        """Queries -> rows of `Retrieve`, in any order."""
        # Small blocks from here on: finished queries are written early, so that a killed run loses little.
        return self.retrieval.rows(queries).repartition(
            target_num_rows_per_block=self.config.queries_per_call
        )

    def ranked(self, rows: ray.data.Dataset, scorer: Scorer | None) -> ray.data.Dataset:
        """Rows of `Retrieve` -> rows of `RANKED`."""
        arguments = {
            "store": self.store,
            "rule": self.rule,
            "judge": self.retrieval.profile.judge,
            "scorer": scorer,
            "num_asked": self.num_asked,
        }
        return add_stage(
            rows,
            Rerank,
            arguments,
            self.stages["rerank"],
            batch_size=self.config.queries_per_call,
            max_restarts=ENGINE_RESTARTS,
        )

    def written(self, queries: Sequence[str], scorer: Scorer | None) -> ray.data.Dataset:
        """Queries -> rows of `DONE`, in any order, with their rankings and preferences in the store."""
        write = {"store": self.store, "provenance": self.provenance}
        rows = self.ranked(self.retrieved(queries), scorer)
        return add_stage(rows, Write, write, WRITER, batch_size=self.config.queries_per_call)


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
    return LabelRun(config, retrieval, rule, provenance)


def require_images(config: LabelConfig, label_run: LabelRun) -> None:
    """Raise UserError for fewer than two images."""
    where, fingerprint = config.where, label_run.encoder.encoder
    num_images = label_run.store.count(embeddings_table(fingerprint), where)
    if num_images < 2:
        raise UserError(
            f"Encoder {shown(config.encoder)} has embedded {num_images} images"
            f"{f' where {shown(where)}' if where else ''}, but two are needed: run `kallos ingest`, or "
            "change --where."
        )


def requested_queries(config: LabelConfig, label_run: LabelRun) -> list[str]:
    """The file's queries, or drawn ones. Raises UserError for no query, or fewer than two images."""
    require_images(config, label_run)
    if config.queries:
        return read_queries(config.queries, config.num_queries)
    return draw_queries(
        label_run.store, label_run.encoder.encoder, config.where, config.num_queries, config.seed
    )


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
