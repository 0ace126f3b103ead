"""Stages of a Ray Data pipeline that hold a model: pools of actors, and the user's errors inside them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray.data

from actors.encoder import EncodeImages
from cluster.errors import UserError
from cluster.profile import EncoderModel, Stage

# Ray Data's own default restarts a broken actor forever.
MAX_RESTARTS = 10
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
) -> ray.data.Dataset:
    """Append a pool of actors with the resources of `stage`.

    arguments: for the actor's constructor. batch_size: rows per call, None takes the stage's.
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
        max_restarts=MAX_RESTARTS,
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


def find_user_error(error: BaseException | None) -> UserError | None:
    """The UserError among the causes of a Ray error, or None."""
    while error is not None:
        if isinstance(error, UserError):
            return UserError(str(error).strip().splitlines()[-1])
        error = getattr(error, "cause", None) or error.__cause__
    return None
