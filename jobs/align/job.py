"""The job from preferences to a registered encoder; its steps lie in the modules beside it."""

import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from actors.encoder import Encoder, save_encoder
from cluster import command, session
from cluster.errors import UserError
from cluster.schemas import HUMAN, near_ties
from cluster.tables import EncoderRecord, Store
from jobs.align import prepare
from jobs.align.config import AlignConfig
from jobs.align.corpus import read_corpus, read_pairs, saved_corpus
from jobs.align.guard import RECALL, outcome
from jobs.align.progress import progress
from jobs.align.train import finished_state, train

OWN_COLUMNS = ("encoder", "parent", "checkpoint", "seconds")  # what `encoders` has elsewhere, or not at all


def run(config: AlignConfig) -> dict[str, Any]:
    """Align, save, register; returns the report."""
    started = time.perf_counter()
    profile, store = command.settings(config)
    settings = command.merged(profile.align, config)
    out = output_folder(config, store)
    record = store.encoder(config.parent)
    read = read_pairs(store, config.run_id, record.encoder)
    pairs = prepare.weigh(read, settings)
    schedule, captions = prepare.plan_batches(store, pairs, config.where, settings, profile.guard)
    parent = prepare.load_parent(record, profile)
    limit = profile.guard.max_recall_drop
    name = prepare.run_name(record.encoder, parent.precision, settings, pairs, captions, limit)
    folder = out / "align" / name
    command.save_config(config, folder)
    state = finished_state(folder, settings)
    if state is None:
        session.connect(profile)
        session.require({"align": prepare.worker_stage(settings)})
        texts = prepare.query_encoder(parent, record, settings)
        corpus = saved_corpus(
            folder / "corpus", lambda: read_corpus(store, pairs, captions, parent, texts, settings)
        )
        progress(
            f"{schedule.num_queries} queries, {pairs.num_rows} pairs, {len(corpus.image_ids)} images, "
            f"{captions.held_out.num_rows} captions held out"
        )
        images = prepare.load_images(store, corpus, parent, profile, settings)
        keep = config.keep_epochs
        plan = prepare.plan_workers(record, profile, settings, schedule, folder, keep_epochs=keep)
        state = train(plan, schedule, corpus, images, limit)
    guarded = outcome(
        state, num_captions=captions.held_out.num_rows, max_drop=limit, num_epochs=settings.epochs
    )
    if state["over_limit"]:
        progress(f"{RECALL} fell by more than {limit:g}: epoch {guarded['kept_epoch']} is kept")
    checkpoint, fingerprint = save(parent, record, state["learned"], profile.guard.wise_ft_alpha, out)
    report = {
        "encoder": fingerprint,
        "parent": record.encoder,
        "checkpoint": checkpoint,
        "mode": settings.mode,
        "run_id": config.run_id or "",
        "wise_ft_alpha": profile.guard.wise_ft_alpha,
        "training": str(folder),
        "num_queries": schedule.num_queries,
        "num_queries_left_out": len(read["query"].unique()) - schedule.num_queries,
        **counts(read),
        "epochs": state["epochs"],
        **guarded,
        "seconds": round(time.perf_counter() - started, 1),
    }
    register(store, report, parent.dim)
    return report


def counts(pairs: pa.Table) -> dict[str, int]:
    """How many preferences were read, and how many of them have a weight of their own."""
    return {
        "num_preferences": pairs.num_rows,
        "num_near_ties": int(near_ties(pairs["p_winner"].to_numpy()).sum()),
        "num_inconsistent": pc.sum(pc.invert(pairs["consistent"])).as_py(),
        "num_human": pc.sum(pc.equal(pairs["source"], HUMAN)).as_py(),
    }


def output_folder(config: AlignConfig, store: Store) -> Path:
    """Where encoder and training state go. Raises UserError when the store's neighbour is no local folder."""
    if config.out:
        return Path(config.out).absolute()
    if "://" in store.uri:
        raise UserError(
            f"The store {store.uri} is not a local folder, so there is no place beside it for the encoder: "
            "give --out, a folder that every node of the cluster shares."
        )
    return Path(store.uri).absolute().parent


def save(
    parent: Encoder, record: EncoderRecord, learned: dict[str, torch.Tensor], alpha: float, out: Path
) -> tuple[str, str]:
    """Write the aligned encoder to `<out>/encoders/<fingerprint>`; gives that folder and the fingerprint.

    Weights are (1 - alpha) theta_ref + alpha theta (WiSE-FT, arXiv 2109.01903). `parent` becomes the aligned
    encoder.
    """
    weights = parent.model.state_dict()
    with torch.no_grad():
        for name, value in learned.items():
            weights[name].lerp_(value.to(weights[name].dtype), alpha)
    draft = out / "encoders" / f".draft-{uuid.uuid4().hex}"
    fingerprint = save_encoder(parent.model, prepare.local_path(record.checkpoint), str(draft))
    folder = draft.with_name(fingerprint)
    if folder.exists():  # the same weights, saved by an earlier run
        shutil.rmtree(draft)
    else:
        draft.rename(folder)
    return str(folder), fingerprint


def register(store: Store, report: dict[str, Any], dim: int) -> None:
    """A row in `encoders`, and the alias `candidate`."""
    metrics = {"align": {name: value for name, value in report.items() if name not in OWN_COLUMNS}}
    store.register_encoder(
        EncoderRecord(
            encoder=report["encoder"],
            parent=report["parent"],
            checkpoint=report["checkpoint"],
            dim=dim,
            metrics=metrics,
        )
    )
    store.set_alias("candidate", report["encoder"])
