"""Trains an encoder on preferences, saves it, and registers it as `candidate`."""

import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from actors.encoder import Encoder, load_registered, save_encoder
from cluster import command, session, terminal
from cluster.errors import UserError
from cluster.schemas import HUMAN, near_ties
from cluster.tables import EncoderRecord, Store
from jobs.align import prepare
from jobs.align.batches import weigh_pairs
from jobs.align.config import AlignConfig
from jobs.align.corpus import (
    read_corpus,
    read_pairs,
    save_corpus,
    saved_corpus,
    trainable,
    without_images,
)
from jobs.align.guard import interpolate, outcome
from jobs.align.images import load_images
from jobs.align.learner import check_finite
from jobs.align.nulls import fitted_nulls
from jobs.align.train import TrainingRun, finished_state, train


def run(config: AlignConfig) -> dict[str, Any]:
    """Run the job and return its report."""
    started = time.perf_counter()
    profile, store = command.settings(config)
    settings = command.merged(profile.align, config)
    out = output_folder(config, store)
    record = store.encoder(config.parent)
    read = read_pairs(store, config.run_id, record.encoder)
    training = trainable(read)
    pairs = weigh_pairs(training, settings)
    schedule, captions = prepare.plan_batches(store, pairs, config.where, settings, profile.guard)
    model = profile.encoder
    parent = load_registered(record, precision=model.precision, num_threads=model.num_threads)
    name = prepare.run_name(record.encoder, parent.precision, settings, pairs, captions)
    folder = out / "align" / name
    command.save_config(config, folder)
    corpus = saved_corpus(folder / "corpus")
    state = finished_state(folder, settings) if corpus else None
    if corpus is None or state is None:
        session.connect(profile)
        session.require({"align": prepare.worker_stage(settings)})
        texts = prepare.query_encoder(parent, record, settings)
        full = corpus or read_corpus(store, pairs, captions, parent, texts, settings)
        images, lost = load_images(store, full, parent, profile, settings)
        corpus = save_corpus(without_images(full, lost), folder / "corpus")
        schedule = schedule.of_corpus(corpus)
        terminal.say(
            f"align: {schedule.num_queries} queries, {pairs.num_rows} pairs, {len(corpus.image_ids)} images, "
            f"{corpus.guard.num_rows} captions for the guard"
        )
        training_run = TrainingRun(
            model=model.model_copy(update={"model": prepare.local_path(record.checkpoint)}),
            num_steps=schedule.num_steps,
            folder=str(folder),
            settings=settings,
            keep_epochs=config.keep_epochs,
        )
        state = train(training_run, schedule, corpus, images)
    check_finite(state)
    schedule = schedule.of_corpus(corpus)
    sizes = {"num_captions": corpus.guard.num_rows, "num_epochs": settings.epochs}
    recall = outcome(state["alpha_curve"], profile.guard, **sizes)
    nulls = fitted_nulls(profile, settings, store, corpus, parent, record, out / "align" / "nulls")
    checkpoint, fingerprint = save(parent, record, state["learned"], recall["wise_ft_alpha"], out)
    report = {
        "encoder": fingerprint,
        "parent": record.encoder,
        "checkpoint": checkpoint,
        "mode": settings.mode,
        "run_id": config.run_id or "",
        "training": str(folder),
        "num_queries": schedule.num_queries,
        "num_queries_left_out": len(read["query"].unique()) - schedule.num_queries,
        "num_held_out": read.num_rows - training.num_rows,
        **counts(read),
        "epochs": state["epochs"],
        **recall,
        "seconds": round(time.perf_counter() - started, 1),
    }
    register(store, report, parent.dim, nulls)
    return report


def counts(pairs: pa.Table) -> dict[str, int]:
    """Number of preferences, and how many of them get a special weight, by reason."""
    return {
        "num_preferences": pairs.num_rows,
        "num_near_ties": int(near_ties(pairs["p_winner"].to_numpy()).sum()),
        "num_inconsistent": pc.sum(pc.invert(pairs["consistent"])).as_py(),
        "num_human": pairs["source"].to_pylist().count(HUMAN),
    }


def output_folder(config: AlignConfig, store: Store) -> Path:
    """Folder for the encoder and the training state, by default beside the store.

    Raises UserError without --out when the store is not in a local folder.
    """
    if config.out:
        return Path(config.out).absolute()
    if "://" in store.uri:
        raise UserError(
            f"{store} is not a local folder, so the encoder cannot be saved beside it: give --out, a folder "
            "that every node of the cluster shares."
        )
    return Path(store.uri).absolute().parent


def save(
    parent: Encoder, record: EncoderRecord, learned: dict[str, Tensor], alpha: float, out: Path
) -> tuple[str, str]:
    """Write the aligned encoder to `<out>/encoders/<fingerprint>`; returns the folder and the fingerprint.

    Its weights are (1 - alpha) theta_ref + alpha theta (WiSE-FT, arXiv 2109.01903), computed on the CPU.
    Changes the weights of `parent`.
    """
    interpolate(parent.model, parent.model.state_dict(), learned, alpha)
    draft = out / "encoders" / f".draft-{uuid.uuid4().hex}"
    fingerprint = save_encoder(parent.model, prepare.local_path(record.checkpoint), str(draft))
    folder = draft.with_name(fingerprint)
    if folder.exists():  # an earlier run saved the same weights
        shutil.rmtree(draft)
    else:
        draft.rename(folder)
    return str(folder), fingerprint


def register(store: Store, report: dict[str, Any], dim: int, nulls: dict | None) -> None:
    """Add a row to `encoders`, with the nulls if there are any, and point the alias `candidate` at it."""
    identity = {name: report[name] for name in ("encoder", "parent", "checkpoint")}
    metrics = {name: value for name, value in report.items() if name not in (*identity, "seconds")}
    metrics |= {"training": store.remember(report["training"])} | ({"nulls": nulls} if nulls else {})
    store.register_encoder(EncoderRecord(**identity, dim=dim, metrics={"align": metrics}))
    store.set_alias("candidate", report["encoder"])
