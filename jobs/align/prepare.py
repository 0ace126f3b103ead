"""What training needs beforehand: the schedule of batches, the run's name, the workers' resources."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray

from actors.encoder import Encoder
from cluster.errors import UserError
from cluster.profile import Align, Guard, Stage, repo_path
from cluster.tables import EncoderRecord, Store
from jobs.align.batches import BatchSchedule
from jobs.align.corpus import EncodeTexts, read_captions
from jobs.align.guard import CaptionPairs, hold_out


def plan_batches(
    store: Store, pairs: pa.Table, where: str | None, settings: Align, guard: Guard
) -> tuple[BatchSchedule, CaptionPairs]:
    """The schedule of batches, and the caption pairs drawn for the whole run.

    Raises UserError when L_pt is on and there is no caption to train on.
    """
    with_captions = settings.pretrain_weight > 0
    schedule = BatchSchedule(
        num_queries=len(pairs["query"].unique()),
        num_captions=0,
        queries_per_batch=settings.queries_per_batch,
        caption_batch_size=settings.caption_batch_size if with_captions else 0,
        batches_per_step=settings.num_workers * settings.batches_per_step,
        seed=settings.seed,
    )
    captions = hold_out(read_captions(store, where), guard.num_captions, settings.seed)
    if with_captions and not captions.training.num_rows:
        filtered = f" that --where {where!r} keeps" if where else ""
        raise UserError(
            f"{store} has no image with a caption for the contrastive loss{filtered}: ingest images with "
            "captions, or set align.pretrain_weight to 0 in the profile."
        )
    # Pairs that the run will never reach are dropped, so that their images are not read and decoded.
    limit = settings.epochs * schedule.num_batches * schedule.caption_batch_size
    drawn = np.random.default_rng(settings.seed).permutation(captions.training.num_rows)[:limit]
    training = captions.training.take(np.sort(drawn))
    schedule = dataclasses.replace(schedule, num_captions=training.num_rows)
    return schedule, CaptionPairs(training, captions.held_out)


def worker_stage(settings: Align) -> Stage:
    """The resources of all training workers together."""
    count = settings.num_workers
    return Stage(min_actors=count, max_actors=count, num_cpus=1, num_gpus=1 if settings.use_gpu else 0)


def run_name(parent: str, precision: str, settings: Align, pairs: pa.Table, captions: CaptionPairs) -> str:
    """Hash of everything that determines the result of training; 16 hex characters."""
    scalars = f"{parent} {precision} {settings.model_dump_json()}"
    digest = hashlib.sha256(scalars.encode())
    pairs = pairs.sort_by([(name, "ascending") for name in pairs.column_names])
    for table in (pairs, captions.training, captions.held_out):
        for column in table.combine_chunks().columns:
            digest.update("\0".join(map(str, column.to_pylist())).encode())
    return digest.hexdigest()[:16]


def query_encoder(parent: Encoder, record: EncoderRecord, settings: Align) -> EncodeTexts:
    """The parent's text tower: in this process, or in a task that reserves a GPU if training uses GPUs."""
    if not settings.use_gpu:
        return parent.encode_texts
    task = ray.remote(num_gpus=1)(_encode_texts)
    return lambda texts: ray.get(task.remote(local_path(record.checkpoint), parent.precision, texts))


def _encode_texts(model: str, precision: str, texts: list[str]) -> np.ndarray:
    return Encoder.load(model, precision=precision, num_gpus=1).encode_texts(texts)


def local_path(model: str) -> str:
    """Make a local model folder absolute, since workers run in other folders; other names are unchanged."""
    path = Path(repo_path(model))
    return str(path.absolute()) if path.exists() else model
