"""Distributed training with Ray Train: the loop of one worker, and the trainer that starts the workers.

The batches of all epochs are one Ray Dataset, split in order among the workers. It begins after the epoch of
the newest checkpoint, so a resumed run trains on exactly the batches that are left. After every epoch
the first worker measures the guard set, and after the last one the guard's whole curve.
"""

import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ray
import ray.data
import ray.train
import ray.train.torch
import torch
from torch import Tensor

from actors.encoder import Encoder
from cluster.profile import Align, EncoderModel
from jobs.align.batches import BatchSchedule, Corpus, make_batch, strings
from jobs.align.guard import GuardSet, alpha_curve, guard_recalls
from jobs.align.images import Images, SharedImages
from jobs.align.learner import METRICS, Learner, has_diverged
from jobs.align.progress import follow, write_epoch

STATE_NAME, PROGRESS_NAME = "state.pt", "epochs.jsonl"
BATCHES = "batches"  # name of the dataset in Ray Train
MAX_FAILURES = 3  # how often lost workers are replaced; they resume from the newest checkpoint


@dataclass(frozen=True)
class TrainingRun:
    """The settings of one run, as every worker needs them."""

    model: EncoderModel  # the profile's encoder, with the parent's checkpoint
    num_steps: int  # optimiser steps of an epoch
    folder: str  # for checkpoints and progress
    settings: Align
    keep_epochs: bool = False  # whether the checkpoints of earlier epochs stay in the folder

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one worker in an epoch."""
        return self.num_steps * self.settings.batches_per_step


def train(
    run: TrainingRun, schedule: BatchSchedule, corpus: Corpus, images: Images, *,
    loop: Callable[[dict[str, Any]], None] | None = None, max_failures: int = MAX_FAILURES,
) -> dict[str, Any]:  # fmt: skip
    """Train to the last epoch, from the newest checkpoint if there is one; returns `Learner.state`.

    Training stops early when it diverges: the loss of the last epoch is then NaN. `loop` is the function that
    each worker runs, by default `train_worker`.
    Raises ray.train.TrainingFailedError when workers fail more than `max_failures` times.
    """
    settings, folder = run.settings, Path(run.folder)
    guard = GuardSet(strings(corpus.guard["caption"]), corpus.guard["image"].to_numpy())
    resources = {"CPU": 1, "GPU": 1} if settings.use_gpu else {"CPU": 1}
    trainer = ray.train.torch.TorchTrainer(
        loop or train_worker,
        train_loop_config={"run": run, "images": images, "guard": guard},
        scaling_config=ray.train.ScalingConfig(
            num_workers=settings.num_workers, use_gpu=settings.use_gpu, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=None if run.keep_epochs else 1),
        ),
        # Ray Train calls this function whenever it starts workers, also to replace lost ones.
        datasets={BATCHES: functools.partial(remaining_batches, ray.put(corpus), images, schedule, run)},
        # In order, so that each worker gets its own batches.
        dataset_config=ray.train.DataConfig(execution_options=ray.data.ExecutionOptions(preserve_order=True)),
    )
    with follow(folder / PROGRESS_NAME):
        result = trainer.fit()
    assert result.checkpoint is not None, result
    return load_state(result.checkpoint)


def remaining_batches(
    corpus: ray.ObjectRef, images: Images, schedule: BatchSchedule, run: TrainingRun
) -> ray.data.Dataset:
    """The batches of the epochs that have no checkpoint yet, each with its `index` over all epochs.

    Each batch is one block, so a split in order gives worker r of W the batches r, r + W, r + 2 W, ...
    """
    first = num_epochs_done(Path(run.folder)) * schedule.num_batches
    count = run.settings.epochs * schedule.num_batches - first
    indices = ray.data.range(count, override_num_blocks=max(1, count))
    make = cast(Any, _make_batch)  # Ray's types allow no arguments besides the row
    pool = ray.data.TaskPoolStrategy(size=run.model.decode.max_actors)
    return indices.map(make, fn_args=(corpus, images, schedule, first), compute=pool)


def _make_batch(
    row: dict[str, Any], corpus: ray.ObjectRef, images: Images, schedule: BatchSchedule, first: int
) -> dict[str, Any]:
    index = first + row["id"]
    epoch, in_epoch = divmod(index, schedule.num_batches)
    data: Corpus = ray.get(corpus)
    batch = make_batch(data, schedule.queries(epoch)[in_epoch], schedule.captions(epoch)[in_epoch])
    # Shared images stay row numbers. The stream is then so small that Ray Data finishes it at once; otherwise
    # it would poll a full output queue and take a CPU core from training.
    if not isinstance(images, SharedImages):
        batch["images"] = images.take(batch["images"])
    return {**batch, "index": index}


def checkpoints(folder: Path) -> list[tuple[ray.train.Checkpoint, dict[str, Any]]]:
    """The run's remaining checkpoints in this folder, each with the metrics of its epoch, by epoch."""
    try:
        kept = ray.train.Result.from_path(folder).best_checkpoints or []
    except RuntimeError:  # no checkpoint has been reported yet
        return []
    return sorted(kept, key=lambda pair: pair[1]["epoch"])


def num_epochs_done(folder: Path) -> int:
    """Number of epochs in the newest checkpoint of the run in this folder."""
    return max((metrics["epoch"] for _, metrics in checkpoints(folder)), default=0)


def finished_state(folder: Path, settings: Align) -> dict[str, Any] | None:
    """The `Learner.state` of a finished run; None when training is not finished."""
    for checkpoint, metrics in checkpoints(folder)[-1:]:
        if has_diverged([metrics]) or metrics["epoch"] >= settings.epochs:
            return load_state(checkpoint)
    return None


def train_worker(config: dict[str, Any]) -> None:
    """The loop of one worker; it resumes from the newest checkpoint of the run, if there is one."""
    run: TrainingRun = config["run"]
    guard: GuardSet = config["guard"]
    images: Images = config["images"]
    encoder = _reference(run)
    learner = Learner(encoder, run.settings, run.num_steps)
    if checkpoint := ray.train.get_checkpoint():
        learner.load(load_state(checkpoint, encoder.device))
    learner.wrapped = ray.train.torch.prepare_model(
        learner.towers, move_to_device=False, parallel_strategy_kwargs={"broadcast_buffers": False}
    )
    own_batches = _own_batches(images, len(learner.epochs) * run.batches_per_epoch)
    while not learner.finished:
        started = time.perf_counter()
        means = learner.epoch(own_batches)
        seconds = round(time.perf_counter() - started, 2)
        metrics = {"epoch": len(learner.epochs) + 1, **_over_workers(means), "seconds": seconds}
        learner.epochs.append(metrics)
        if guard.captions and _is_first() and not has_diverged([metrics]):
            metrics |= guard_recalls(encoder, guard, images.take)
            if learner.finished:
                learned = learner.towers.learned()
                learner.alpha_curve = alpha_curve(_reference(run), learned, guard, images.take)
        _report(learner, run)


def _reference(run: TrainingRun) -> Encoder:
    """The parent, on the device of this worker."""
    model = run.model
    return Encoder.load(
        model.model,
        precision=model.precision,
        num_threads=model.num_threads,
        num_gpus=float(run.settings.use_gpu),
    )


def _is_first() -> bool:
    return ray.train.get_context().get_world_rank() == 0


def _own_batches(images: Images, num_done: int) -> Iterator[dict[str, Any]]:
    """This worker's batches in order, without the first `num_done`, which it has trained on already."""
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    shard = ray.train.get_dataset_shard(BATCHES)
    assert shard is not None, BATCHES
    for index, batch in enumerate(shard.iter_rows(), start=num_done):
        assert batch["index"] == index * size + rank, (batch["index"], index, size, rank)
        if isinstance(images, SharedImages):
            batch["images"] = images.take(batch["images"])
        yield batch


def _over_workers(means: Tensor) -> dict[str, float]:
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(means)
        means = means / torch.distributed.get_world_size()
    return dict(zip(METRICS, means.tolist(), strict=True))


def _report(learner: Learner, run: TrainingRun) -> None:
    """Report metrics to Ray Train; the first worker also reports the checkpoint."""
    metrics = learner.epochs[-1]
    if not _is_first():
        ray.train.report(metrics)
        return
    write_epoch(Path(run.folder) / PROGRESS_NAME, run.settings.epochs, metrics)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(learner.state(), Path(folder) / STATE_NAME)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def load_state(checkpoint: ray.train.Checkpoint, device: str = "cpu") -> dict[str, Any]:
    """The `Learner.state` in a checkpoint."""
    with checkpoint.as_directory() as folder:
        return torch.load(Path(folder) / STATE_NAME, map_location=device, weights_only=True)
