"""What is settled before training starts: the order of batches, the run's name, where images come from."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray

from actors.encoder import Encoder
from cluster.errors import UserError
from cluster.profile import Align, Guard, Profile, Stage, repo_path
from cluster.tables import EncoderRecord, Store
from jobs.align.batches import Corpus, Schedule, weigh_pairs
from jobs.align.corpus import EncodeTexts, find_rows, read_captions, read_vectors
from jobs.align.guard import CaptionPairs, draw
from jobs.align.inputs import Images, SharedImages, StoredImages, num_pixel_bytes, share_pixels
from jobs.align.learner import Plan
from jobs.align.progress import progress


def weigh(pairs: pa.Table, settings: Align) -> pa.Table:
    """The pairs that weigh anything, with their `weight`. Raises UserError when there are none."""
    weighed = weigh_pairs(
        pairs,
        near_tie_weight=settings.near_tie_weight,
        inconsistent_weight=settings.inconsistent_weight,
        human_weight=settings.human_weight,
    )
    if not weighed.num_rows:
        raise UserError(
            f"None of the {pairs.num_rows} preferences weighs anything: all are near ties, inconsistent or "
            f"people's, with align.near_tie_weight {settings.near_tie_weight:g}, align.inconsistent_weight "
            f"{settings.inconsistent_weight:g} and align.human_weight {settings.human_weight:g}: raise them, "
            "or label with another judge."
        )
    return weighed


def plan_batches(
    store: Store, pairs: pa.Table, where: str | None, settings: Align, guard: Guard
) -> tuple[Schedule, CaptionPairs]:
    """The order of batches, and the caption pairs drawn for the whole run.

    Raises UserError when L_pt has no caption to learn from.
    """
    with_captions = settings.pretrain_weight > 0
    schedule = Schedule(
        num_queries=len(pairs["query"].unique()),
        num_captions=0,
        queries_per_batch=settings.queries_per_batch,
        caption_batch_size=settings.caption_batch_size if with_captions else 0,
        batches_per_step=settings.num_workers * settings.batches_per_step,
        seed=settings.seed,
    )
    captions = draw(read_captions(store, where), guard.num_captions, settings.seed)
    if with_captions and not captions.learned.num_rows:
        kept = f"that --where {where!r} keeps " if where else ""
        raise UserError(
            f"No image {kept}in {store.uri} has a caption for the contrastive loss: set the profile's "
            "align.pretrain_weight to 0, or ingest images with captions."
        )
    # No more images are read and decoded than the run can draw.
    limit = settings.epochs * schedule.num_batches * schedule.caption_batch_size
    drawn = np.random.default_rng(settings.seed).permutation(captions.learned.num_rows)[:limit]
    learned = captions.learned.take(np.sort(drawn))
    schedule = dataclasses.replace(schedule, num_captions=learned.num_rows)
    return schedule, CaptionPairs(learned, captions.held_out)


def worker_stage(settings: Align) -> Stage:
    """The resources of all training workers together."""
    count = settings.num_workers
    return Stage(min_actors=count, max_actors=count, num_cpus=1, num_gpus=1 if settings.use_gpu else 0)


def load_parent(record: EncoderRecord, profile: Profile) -> Encoder:
    """The parent, on the CPU. Raises UserError when its checkpoint is no longer the one registered."""
    encoder = Encoder.load(
        record.checkpoint, precision=profile.encoder.precision, num_threads=profile.encoder.num_threads
    )
    if encoder.fingerprint != record.encoder:
        raise UserError(
            f"The checkpoint {record.checkpoint} of encoder {record.encoder} is now {encoder.fingerprint}: "
            "restore the checkpoint, or ingest with the new one and label again."
        )
    return encoder


def run_name(
    parent: str,
    precision: str,
    settings: Align,
    pairs: pa.Table,
    captions: CaptionPairs,
    max_recall_drop: float,
) -> str:
    """16 hex characters: the hash of all that decides what training gives."""
    decided = f"{parent} {precision} {settings.model_dump_json()} {max_recall_drop}"
    digest = hashlib.sha256(decided.encode())
    pairs = pairs.sort_by([(name, "ascending") for name in pairs.column_names])
    for table in (pairs, captions.learned, captions.held_out):
        for column in table.combine_chunks().columns:
            digest.update("\0".join(map(str, column.to_pylist())).encode())
    return digest.hexdigest()[:16]


def query_encoder(parent: Encoder, record: EncoderRecord, settings: Align) -> EncodeTexts:
    """The parent's text tower: here, or in a task that holds a GPU where training has them."""
    if not settings.use_gpu:
        return parent.encode_texts
    task = ray.remote(num_gpus=1)(_encode_texts)
    return lambda texts: ray.get(task.remote(local_path(record.checkpoint), parent.precision, texts))


def _encode_texts(model: str, precision: str, texts: list[str]) -> np.ndarray:
    return Encoder.load(model, precision=precision, num_gpus=1).encode_texts(texts)


def load_images(store: Store, corpus: Corpus, parent: Encoder, profile: Profile, settings: Align) -> Images:
    """What batches take their images from: vectors in mode `text`, else pixels, shared when they fit."""
    if settings.mode == "text":
        return SharedImages(ray.put(read_vectors(store, parent.fingerprint, corpus.image_ids)))
    places = find_rows(store, "images", corpus.image_ids)
    stored = StoredImages(store, store.open("images").to_lance().version, places, parent.fit)
    needed = num_pixel_bytes(len(places), parent.fit)
    if needed > settings.pixel_cache_bytes:
        progress(f"pixels take {needed:,} bytes, over {settings.pixel_cache_bytes:,}: decoding at every use")
        return stored
    return share_pixels(stored, profile.encoder.decode.max_actors)


def plan_workers(
    record: EncoderRecord, profile: Profile, settings: Align, schedule: Schedule, folder: Path,
    *, keep_epochs: bool,
) -> Plan:  # fmt: skip
    """What each training worker is told."""
    return Plan(
        model=local_path(record.checkpoint),
        precision=profile.encoder.precision,
        num_threads=profile.encoder.num_threads,
        num_steps=schedule.num_steps,
        batches_per_step=settings.batches_per_step,
        num_feeders=profile.encoder.decode.max_actors,
        folder=str(folder),
        settings=settings,
        keep_epochs=keep_epochs,
    )


def local_path(model: str) -> str:
    """A model's local folder as an absolute path, since workers run elsewhere; other names unchanged."""
    path = Path(repo_path(model))
    return str(path.absolute()) if path.exists() else model
