"""The batches of all epochs as one Ray Dataset, so that no worker waits at the end of an epoch."""

from typing import Any, cast

import ray
import ray.data

from jobs.align.batches import BatchSchedule, Corpus, make_batch
from jobs.align.images import Images, SharedImages


def batch_stream(
    corpus: ray.ObjectRef, images: Images, schedule: BatchSchedule, epochs: range, *, num_tasks: int
) -> ray.data.Dataset:
    """The batches of those epochs as `make_batch` returns them, each with its `index` over all epochs.

    Args:
        corpus: reference to a `Corpus`.
        images: shared images stay row numbers. The stream is then so small that Ray Data finishes it at once;
            otherwise it would poll a full output queue and take a CPU core from training. Other images are
            filled in.
        schedule: which queries and captions each batch has.
        epochs: indices of the epochs, from 0.
        num_tasks: how many batches are made at the same time.

    Each batch is one block, so a split in order gives worker r of W the batches r, r + W, r + 2 W, ...
    """
    first, count = epochs.start * schedule.num_batches, len(epochs) * schedule.num_batches
    indices = ray.data.range(count, override_num_blocks=max(1, count))
    pool = ray.data.TaskPoolStrategy(size=num_tasks)
    make = cast(Any, _batch)  # Ray's types allow no arguments besides the row
    return indices.map(make, fn_args=(corpus, images, schedule, first), compute=pool)


def _batch(
    row: dict[str, Any], corpus: ray.ObjectRef, images: Images, schedule: BatchSchedule, first: int
) -> dict[str, Any]:
    index = first + row["id"]
    epoch, in_epoch = divmod(index, schedule.num_batches)
    data: Corpus = ray.get(corpus)
    batch = make_batch(data, schedule.queries(epoch)[in_epoch], schedule.captions(epoch)[in_epoch])
    if not isinstance(images, SharedImages):
        batch["images"] = images.take(batch["images"])
    return {**batch, "index": index}
