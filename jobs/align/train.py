"""Distributed training with Ray Train: the loop of one worker, and the trainer that runs it on all.

The batches of all epochs are one Ray Dataset, split in order among the workers. It begins after the epoch of
the newest checkpoint, so that a run which goes on sees exactly the batches that it has not seen yet. After
every epoch the first worker measures the guard set, and all stop when recall@10 fell too far.
"""

import functools
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
import ray.data
import ray.train
import ray.train.torch
import torch
from torch import Tensor

from actors.encoder import Encoder
from cluster.profile import Align
from jobs.align.batches import Corpus, Schedule
from jobs.align.guard import RECALL, GuardSet, exceeds
from jobs.align.inputs import Images, SharedImages, batches
from jobs.align.learner import METRICS, Learner, Plan
from jobs.align.progress import follow, write_epoch

STATE_NAME, PROGRESS_NAME = "state.pt", "epochs.jsonl"
BATCHES = "batches"  # the name under which workers ask for their part of the dataset
MAX_FAILURES = 3  # times that lost workers are replaced; training goes on from the newest checkpoint


def train(
    plan: Plan, schedule: Schedule, corpus: Corpus, images: Images, max_recall_drop: float, *,
    loop: Callable[[dict[str, Any]], None] | None = None, max_failures: int = MAX_FAILURES,
) -> dict[str, Any]:  # fmt: skip
    """Train to the last epoch, from the newest checkpoint of the run if it has one; gives `Learner.state`.

    Training ends before that when recall@10 of the guard set falls by more than `max_recall_drop`. `loop` is
    what a worker runs, `train_worker` if not given.
    Raises ray.train.TrainingFailedError when workers fail more often than `max_failures`.
    """
    settings, folder = plan.settings, Path(plan.folder)
    guard = GuardSet(
        corpus.guard["caption"].to_pylist(), corpus.guard["image"].to_numpy(), max_drop=max_recall_drop
    )
    resources = {"CPU": 1, "GPU": 1} if settings.use_gpu else {"CPU": 1}
    trainer = ray.train.torch.TorchTrainer(
        loop or train_worker,
        train_loop_config={"plan": plan, "images": images, "guard": guard},
        scaling_config=ray.train.ScalingConfig(
            num_workers=settings.num_workers, use_gpu=settings.use_gpu, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=None if plan.keep_epochs else 1),
        ),
        # A function, which Ray Train calls whenever it starts workers, also in the place of lost ones.
        datasets={BATCHES: functools.partial(remaining_batches, ray.put(corpus), images, schedule, plan)},
        # In order, so that every worker gets the batches that are its own.
        dataset_config=ray.train.DataConfig(execution_options=ray.data.ExecutionOptions(preserve_order=True)),
    )
    with follow(folder / PROGRESS_NAME):
        result = trainer.fit()
    return load_state(result.checkpoint, "cpu")


def remaining_batches(
    corpus: ray.ObjectRef, images: Images, schedule: Schedule, plan: Plan
) -> "ray.data.Dataset":
    """The batches of the epochs that have no checkpoint yet."""
    done = num_epochs_done(Path(plan.folder))
    return batches(corpus, images, schedule, range(done, plan.settings.epochs), num_tasks=plan.num_feeders)


def num_epochs_done(folder: Path) -> int:
    """How many epochs of the run in the folder are in its newest checkpoint."""
    newest = _newest(folder)
    return newest.metrics["epoch"] if newest else 0


def _newest(folder: Path) -> ray.train.Result | None:
    try:
        return ray.train.Result.from_path(folder)
    except RuntimeError:  # no checkpoint has been reported there yet
        return None


def finished_state(folder: Path, settings: Align) -> dict[str, Any] | None:
    """The `Learner.state` of a run whose last epoch is done; None when there is training left to do."""
    newest = _newest(folder)
    if newest is None or not (newest.metrics["over_limit"] or newest.metrics["epoch"] >= settings.epochs):
        return None
    return load_state(newest.checkpoint, "cpu")


def kept_states(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(epoch, `Learner.state` after it) of every checkpoint that the run in the folder kept, in order."""
    newest = _newest(folder)
    kept = newest.best_checkpoints if newest else []
    for checkpoint, metrics in sorted(kept, key=lambda pair: pair[1]["epoch"]):
        yield metrics["epoch"], load_state(checkpoint, "cpu")


def train_worker(config: dict[str, Any]) -> None:
    """What each of Ray Train's workers runs; it goes on from the newest checkpoint of the run, if any."""
    plan: Plan = config["plan"]
    guard: GuardSet = config["guard"]
    images: Images = config["images"]
    num_gpus = float(plan.settings.use_gpu)
    encoder = Encoder.load(
        plan.model, precision=plan.precision, num_threads=plan.num_threads, num_gpus=num_gpus
    )
    learner = Learner(encoder, plan)
    if checkpoint := ray.train.get_checkpoint():
        learner.load(load_state(checkpoint, encoder.device))
    learner.wrapped = ray.train.torch.prepare_model(
        learner.towers, move_to_device=False, parallel_strategy_kwargs={"broadcast_buffers": False}
    )
    own_batches = _own_batches(images, len(learner.epochs) * plan.batches_per_epoch)
    if guard.captions and learner.recall_before is None:
        learner.recall_before = _guard_recall(learner, guard, images)
    while not learner.finished:
        if guard.captions and _is_first():
            learner.keep()
        started = time.perf_counter()
        means = learner.epoch(itertools.islice(own_batches, plan.batches_per_epoch))
        seconds = round(time.perf_counter() - started, 2)
        metrics = {"epoch": len(learner.epochs) + 1, **_over_workers(means), "seconds": seconds}
        if guard.captions:
            metrics[RECALL] = _guard_recall(learner, guard, images)
            learner.over_limit = exceeds(learner.recall_before, metrics[RECALL], guard.max_drop)
        learner.epochs.append(metrics)
        _report(learner)


def _is_first() -> bool:
    return ray.train.get_context().get_world_rank() == 0


def _guard_recall(learner: Learner, guard: GuardSet, images: Images) -> float:
    """What the first worker measures, told to all, so that all decide alike.

    The others wait in the broadcast: seconds, where Ray Train lets a collective take half an hour.
    """
    value = torch.zeros(1, dtype=torch.float64, device=learner.encoder.device)
    if _is_first():
        value += learner.recall(guard, images.take)
    if torch.distributed.is_initialized():
        torch.distributed.broadcast(value, src=0)
    return value.item()


def _own_batches(images: Images, num_done: int) -> Iterator[dict[str, Any]]:
    """This worker's batches in order, after the `num_done` that it has learned from."""
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    for place, batch in enumerate(ray.train.get_dataset_shard(BATCHES).iter_rows(), start=num_done):
        assert batch["number"] == place * size + rank, (batch["number"], place, size, rank)
        if isinstance(images, SharedImages):
            batch["images"] = images.take(batch["images"])
        yield batch


def _over_workers(means: Tensor) -> dict[str, float]:
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(means)
        means = means / torch.distributed.get_world_size()
    return dict(zip(METRICS, means.tolist(), strict=True))


def _report(learner: Learner) -> None:
    """Metrics and checkpoint to Ray Train; the first worker's count."""
    metrics = {**learner.epochs[-1], "over_limit": learner.over_limit}
    if not _is_first():
        ray.train.report(metrics)
        return
    write_epoch(Path(learner.plan.folder) / PROGRESS_NAME, learner.plan.settings.epochs, learner.epochs[-1])
    with tempfile.TemporaryDirectory() as folder:
        torch.save(learner.state(), Path(folder) / STATE_NAME)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def load_state(checkpoint: ray.train.Checkpoint, device: str) -> dict[str, Any]:
    """The `Learner.state` that a checkpoint holds."""
    with checkpoint.as_directory() as folder:
        return torch.load(Path(folder) / STATE_NAME, map_location=device, weights_only=True)
