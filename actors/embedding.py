"""The embedding stage of a Ray Data pipeline: a pool of `EncodeImages` actors for a dataset with `pixels`."""

from collections.abc import Iterator
from contextlib import contextmanager

import ray.data

from actors.encoder import EncodeImages
from cluster.compat.ray_data import SEPARATE_STAGE
from cluster.profile import EncoderModel

# Blocks small enough that the encoders start while the first file is still being read.
BLOCK_BYTES = 16 << 20


def embed(prepared: ray.data.Dataset, model: EncoderModel) -> ray.data.Dataset:
    """Append the actor pool that turns `pixels` (raw uint8 of [3, H, W]) into `vector` (float32 [dim])."""
    return prepared.map_batches(
        EncodeImages,
        batch_size=model.stage.batch_size,
        batch_format="pyarrow",
        fn_constructor_kwargs={
            "model": model.model,
            "precision": model.precision,
            "num_threads": model.num_threads,
            "num_gpus": model.stage.num_gpus,
        },
        compute=ray.data.ActorPoolStrategy(min_size=model.stage.min_actors, max_size=model.stage.max_actors),
        num_cpus=model.stage.num_cpus,
        num_gpus=model.stage.num_gpus,
        **SEPARATE_STAGE,  # else Ray would decode images inside encoders with the same number of CPUs
    )


@contextmanager
def streaming_context() -> Iterator[None]:
    """Small blocks and no progress bars for the datasets made inside."""
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = BLOCK_BYTES
    context.enable_progress_bars = False
    with ray.data.DataContext.current(context):
        yield
