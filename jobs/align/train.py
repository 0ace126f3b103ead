"""Distributed training with Ray Train: the loop of one worker, and the trainer that runs it on all.

The batches of all epochs are one Ray Dataset, split in order among the workers. It begins after the epoch of
the newest checkpoint, so that a run which goes on sees exactly the batches that it has not seen yet.
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
from jobs.align.inputs import Images, SharedImages, batches
from jobs.align.learner import METRICS, Learner, Plan
from jobs.align.progress import follow, write_epoch

STATE_NAME, PROGRESS_NAME = "state.pt", "epochs.jsonl"
BATCHES = "batches"  # the name under which workers ask for their part of the dataset
MAX_FAILURES = 3  # times that lost workers are replaced; training goes on from the newest checkpoint


def train(
    plan: Plan, schedule: Schedule, corpus: Corpus, images: Images, *,
    loop: Callable[[dict[str, Any]], None] | None = None, max_failures: int = MAX_FAILURES,
) -> dict[str, Any]:  # fmt: skip
    """Train to the last epoch, from the newest checkpoint of the run if it has one; gives `Learner.state`.

    `loop` is what a worker runs, `train_worker` if not given.
    Raises ray.train.TrainingFailedError when workers fail more often than `max_failures`.
    """
    settings, folder = plan.settings, Path(plan.folder)
    resources = {"CPU": 1, "GPU": 1} if settings.use_gpu else {"CPU": 1}
    trainer = ray.train.torch.TorchTrainer(
        loop or train_worker,
        train_loop_config={"plan": plan, "images": images},
        scaling_config=ray.train.ScalingConfig(
            num_workers=settings.num_workers, use_gpu=settings.use_gpu, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
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
    try:
        return ray.train.Result.from_path(folder).metrics["epoch"]
    except RuntimeError:  # no checkpoint has been reported there yet
        return 0


def finished_state(folder: Path, settings: Align) -> dict[str, Any] | None:
    """The `Learner.state` of a run whose last epoch is done; None when there is training left to do."""
    if num_epochs_done(folder) < settings.epochs:
        return None
    return load_state(ray.train.Result.from_path(folder).checkpoint, "cpu")


def train_worker(config: dict[str, Any]) -> None:
    """What each of Ray Train's workers runs; it goes on from the newest checkpoint of the run, if any."""
    plan: Plan = config["plan"]
    device = str(ray.train.torch.get_device())
    encoder = Encoder.load(plan.model, precision=plan.precision, device=device, num_threads=plan.num_threads)
    learner = Learner(encoder, plan)
    if checkpoint := ray.train.get_checkpoint():
        learner.load(load_state(checkpoint, device))
    learner.wrapped = ray.train.torch.prepare_model(
        learner.towers, move_to_device=False, parallel_strategy_kwargs={"broadcast_buffers": False}
    )
    own_batches = _own_batches(config["images"], len(learner.epochs) * plan.batches_per_epoch)
    for _ in range(len(learner.epochs), plan.settings.epochs):
        started = time.perf_counter()
        means = learner.epoch(itertools.islice(own_batches, plan.batches_per_epoch))
        seconds = round(time.perf_counter() - started, 2)
        learner.epochs.append({"epoch": len(learner.epochs) + 1, **_over_workers(means), "seconds": seconds})
        _report(learner)


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
    metrics = learner.epochs[-1]
    if ray.train.get_context().get_world_rank() > 0:
        ray.train.report(metrics)
        return
    write_epoch(Path(learner.plan.folder) / PROGRESS_NAME, learner.plan.settings.epochs, metrics)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(learner.state(), Path(folder) / STATE_NAME)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def load_state(checkpoint: ray.train.Checkpoint, device: str) -> dict[str, Any]:
    """The `Learner.state` that a checkpoint holds."""
    with checkpoint.as_directory() as folder:
        return torch.load(Path(folder) / STATE_NAME, map_location=device, weights_only=True)
