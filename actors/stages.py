"""Stages of a Ray Data pipeline that hold a model: pools of actors, and the user's errors inside them."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray.data
from ray.exceptions import RayError

from actors.encoder import EncodeImages
from cluster import terminal
from cluster.compat.errors import causes, sentence_of
from cluster.errors import JobFailure, UserError
from cluster.profile import EncoderModel, Stage

# Ray Data's own default restarts a broken actor forever. That is right only for engines: `actors.in_flight`
# finds the request that kills an engine, and ends the job if there is none.
MAX_RESTARTS = 10
ENGINE_RESTARTS = -1
# Blocks small enough that the encoders start while the first file is still being read.
BLOCK_BYTES = 16 << 20


def add_stage(
    rows: ray.data.Dataset,
    actor: type,
    arguments: dict[str, Any],
    stage: Stage,
    *,
    batch_format: str = "pyarrow",
    batch_size: int | None = None,
    max_restarts: int = MAX_RESTARTS,
) -> ray.data.Dataset:
    """Append a pool of actors with the resources of `stage`.

    arguments: for the actor's constructor. batch_size: rows per call, None takes the stage's. max_restarts:
    of each actor whose process dies, -1 without a limit.
    """
    return rows.map_batches(
        actor,
        fn_constructor_kwargs=arguments,
        batch_format=batch_format,
        batch_size=batch_size or stage.batch_size,
        compute=ray.data.ActorPoolStrategy(min_size=stage.min_actors, max_size=stage.max_actors),
        num_cpus=stage.num_cpus,
        num_gpus=stage.num_gpus,
        # With these arguments Ray also never fuses the stage with the tasks before it.
        max_restarts=max_restarts,
        max_task_retries=-1,
    )


def embed(prepared: ray.data.Dataset, model: EncoderModel) -> ray.data.Dataset:
    """Append the stage that turns `pixels` (raw uint8 of [3, H, W]) into `vector` (float32 [dim])."""
    arguments = {
        "model": model.model,
        "precision": model.precision,
        "num_threads": model.num_threads,
        "num_gpus": model.stage.num_gpus,
    }
    return add_stage(prepared, EncodeImages, arguments, model.stage)


@contextmanager
def streaming_context() -> Iterator[None]:
    """Small blocks and no progress bars for the datasets made inside."""
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = BLOCK_BYTES
    context.enable_progress_bars = False
    with ray.data.DataContext.current(context):
        yield


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise the UserError or JobFailure inside a Ray error; Ray's own text goes to the log."""
    try:
        yield
    except RayError as error:
        found = find_plain_error(error)
        if found is None:
            raise
        traceback.print_exc()
        if isinstance(found, UserError) and (log := terminal.log_path()):
            terminal.say(f"log: {log}")
        raise found from None


def find_plain_error(error: BaseException | None) -> UserError | JobFailure | None:
    """The UserError or JobFailure among the causes of a Ray error, or None."""
    for cause in causes(error):
        for kind in (UserError, JobFailure):
            if sentence := sentence_of(cause, kind):
                return kind(sentence)
    return None
