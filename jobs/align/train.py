"""Distributed training with Ray Train: the loop of one worker, and the trainer that runs it on all.

Each epoch is a Ray Dataset of its own, split in order among the workers, so that a run which goes on from a
checkpoint sees exactly the batches it has not seen yet.
"""

import tempfile
import time
from collections.abc import Callable, Iterable
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
from jobs.align.inputs import Images, batches
from jobs.align.learner import METRICS, Learner, Plan
from jobs.align.progress import follow, write_epoch

STATE_NAME = "state.pt"
MAX_FAILURES = 3  # times that lost workers are replaced; training goes on from the newest checkpoint


def train(
    plan: Plan, schedule: Schedule, corpus: Corpus, images: Images, folder: Path,
    *, loop: Callable[[dict[str, Plan]], None] | None = None, max_failures: int = MAX_FAILURES,
) -> dict[str, Any]:  # fmt: skip
    """Train to the last epoch, from the newest checkpoint in `folder` if there is one; `Learner.state`.

    `loop` is what a worker runs, `train_worker` if not given.
    Raises ray.train.TrainingFailedError when workers fail more often than `max_failures`.
    """
    settings, shared = plan.settings, ray.put(corpus)
    resources = {"CPU": 1, "GPU": 1} if settings.use_gpu else {"CPU": 1}
    trainer = ray.train.torch.TorchTrainer(
        loop or train_worker,
        train_loop_config={"plan": plan},
        scaling_config=ray.train.ScalingConfig(
            num_workers=settings.num_workers, use_gpu=settings.use_gpu, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
        datasets={
            epoch_name(epoch): batches(shared, images, schedule, epoch) for epoch in range(settings.epochs)
        },
        # In order, so that every worker gets the batches that are its own.
        dataset_config=ray.train.DataConfig(execution_options=ray.data.ExecutionOptions(preserve_order=True)),
    )
    with follow(Path(plan.progress_file)):
        result = trainer.fit()
    return load_state(result.checkpoint, "cpu")


def finished_state(folder: Path, settings: Align) -> dict[str, Any] | None:
    """The `Learner.state` of a run whose last epoch is done; None when there is training left to do."""
    try:
        checkpoint = ray.train.Result.from_path(folder).checkpoint
    except RuntimeError:  # nothing has been reported there yet
        return None
    state = load_state(checkpoint, "cpu") if checkpoint else {"epochs": []}
    return state if len(state["epochs"]) == settings.epochs else None


def epoch_name(epoch: int) -> str:
    """The name under which the trainer is given that epoch's batches."""
    return f"epoch-{epoch:04d}"


def train_worker(config: dict[str, Plan]) -> None:
    """What each of Ray Train's workers runs; it goes on from the newest checkpoint of the run, if any."""
    plan = config["plan"]
    device = str(ray.train.torch.get_device())
    encoder = Encoder.load(plan.model, precision=plan.precision, device=device, num_threads=plan.num_threads)
    learner = Learner(encoder, plan)
    if checkpoint := ray.train.get_checkpoint():
        learner.load(load_state(checkpoint, device))
    if ray.train.get_context().get_world_size() > 1:
        learner.wrapped = ray.train.torch.prepare_model(
            learner.towers, move_to_device=False, parallel_strategy_kwargs={"broadcast_buffers": False}
        )
    for epoch in range(len(learner.epochs), plan.settings.epochs):
        started = time.perf_counter()
        means = learner.epoch(_own_batches(epoch))
        learner.epochs.append({**_over_workers(means), "seconds": round(time.perf_counter() - started, 2)})
        _report(learner)


def _own_batches(epoch: int) -> Iterable[dict[str, Any]]:
    """This worker's batches of the epoch, in order."""
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    for place, batch in enumerate(ray.train.get_dataset_shard(epoch_name(epoch)).iter_rows()):
        assert batch["number"] == place * size + rank, (batch["number"], place, size, rank)
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
    settings = learner.plan.settings
    write_epoch(Path(learner.plan.progress_file), len(learner.epochs), settings.epochs, metrics)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(learner.state(), Path(folder) / STATE_NAME)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def load_state(checkpoint: ray.train.Checkpoint, device: str) -> dict[str, Any]:
    """The `Learner.state` that a checkpoint holds."""
    with checkpoint.as_directory() as folder:
        return torch.load(Path(folder) / STATE_NAME, map_location=device, weights_only=True)
