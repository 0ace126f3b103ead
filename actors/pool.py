"""A stage of a Ray Data pipeline: a pool of actors that hold an engine; the user's mistakes inside it."""

from typing import Any

import ray.data

from actors.engine import ENGINE_ACTOR
from cluster.errors import UserError
from cluster.profile import Stage


def through(
    rows: ray.data.Dataset,
    actor: type,
    arguments: dict[str, Any],
    stage: Stage,
    *,
    batch_format: str = "pyarrow",
    batch_size: int = 0,
) -> ray.data.Dataset:
    """The rows after a pool of that actor, of the size that `stage` says.

    batch_size: rows per call, 0 takes the stage's.
    """
    return rows.map_batches(
        actor,
        fn_constructor_kwargs=arguments,
        batch_format=batch_format,
        batch_size=batch_size or stage.batch_size,
        compute=ray.data.ActorPoolStrategy(min_size=stage.min_actors, max_size=stage.max_actors),
        num_cpus=stage.num_cpus,
        num_gpus=stage.num_gpus,
        **ENGINE_ACTOR,
    )


def user_error_in(error: BaseException | None) -> UserError | None:
    """The user's mistake that lies below an error of Ray, or None."""
    while error is not None:
        if isinstance(error, UserError):
            return UserError(str(error).strip().splitlines()[-1])
        error = getattr(error, "cause", None) or error.__cause__
    return None
