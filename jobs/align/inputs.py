"""Feeds training with Ray Data: batches made in tasks, images from shared memory or decoded on the way.

`batches(...)` is all of training as one stream, so that no worker waits where an epoch ends. In mode `text`
images are the stored vectors, in mode `both` pixels. Vectors, and pixels that fit there, lie in the object
store as one array, made once, from which a worker takes the rows that a batch names; other pixels are
decoded in the task that makes the batch.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import ray

from actors.images import STORED, Fit, UnusableImage, pixels, read_stored
from cluster.errors import UserError
from cluster.tables import Store
from jobs.align.batches import Corpus, Schedule, make_batch

IMAGES_PER_TASK = 256


class Images(Protocol):
    """The images of a corpus as the model takes them."""

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Rows of `Corpus.image_ids`, int [N] -> uint8 [N, 3, H, W] pixels, or float32 [N, dim] vectors."""
        ...


@dataclass(frozen=True)
class SharedImages:
    """All of them as one array in Ray's object store, which every process of a node maps without a copy."""

    array: ray.ObjectRef

    def take(self, rows: np.ndarray) -> np.ndarray:
        return ray.get(self.array)[rows]


@dataclass(frozen=True)
class StoredImages:
    """Decoded from the store at each use. `places`: for each image of the corpus its row in the table.

    Previews are quick. Where one would have to be scaled up for the encoder, its file is read, from which the
    reference scores come too.
    """

    store: Store
    version: int  # of the images table in which `places` hold
    places: np.ndarray
    fit: Fit

    def take(self, rows: np.ndarray) -> np.ndarray:
        table = self.store.open("images").to_lance().checkout_version(self.version)
        found = table.take(self.places[rows].tolist(), columns=list(STORED)).to_pylist()
        return np.stack([self._pixels(row) for row in found])

    def _pixels(self, row: dict[str, Any]) -> np.ndarray:
        try:
            image = read_stored(row, shorter_px=max(self.fit.height_px, self.fit.width_px))
        except UnusableImage as error:
            raise UserError(f"Image {row['image_id']} cannot be read for training: {error}.") from error
        return pixels(image, self.fit)


def share_pixels(images: StoredImages, num_tasks: int) -> SharedImages:
    """Decode every image once, in `num_tasks` tasks, into one array [N, 3, H, W] in the object store."""
    count, fit = len(images.places), images.fit
    array = np.empty((count, 3, fit.height_px, fit.width_px), np.uint8)
    rows = ray.data.range(count, override_num_blocks=-(-count // IMAGES_PER_TASK))
    decoded = rows.map_batches(_decode, fn_args=(images,), compute=ray.data.TaskPoolStrategy(size=num_tasks))
    for batch in decoded.iter_batches(batch_size=None, batch_format="numpy"):
        array[batch["id"]] = batch["pixels"]
    return SharedImages(ray.put(array))


def _decode(batch: dict[str, np.ndarray], images: StoredImages) -> dict[str, np.ndarray]:
    return {"id": batch["id"], "pixels": images.take(batch["id"])}


def batches(
    corpus: ray.ObjectRef, images: Images, schedule: Schedule, epochs: range, *, num_tasks: int
) -> "ray.data.Dataset":
    """The batches of those epochs, as `make_batch` gives them; images that are not shared are filled in.

    Shared ones stay row numbers: the stream is then so small that Ray Data is through with it at once, where
    it would otherwise spin on a full output queue and take a core from training.

    `number` counts batches through all epochs, and each is a block of its own: split in order among W
    workers, worker r gets batches r, r + W, r + 2 W, ... `corpus` is a reference to a `Corpus`, `num_tasks`
    how many batches are made at a time.
    """
    first, count = epochs.start * schedule.num_batches, len(epochs) * schedule.num_batches
    numbers = ray.data.range(count, override_num_blocks=max(1, count))
    pool = ray.data.TaskPoolStrategy(size=num_tasks)
    return numbers.map(_batch, fn_args=(corpus, images, schedule, first), compute=pool)


def _batch(
    row: dict[str, Any], corpus: ray.ObjectRef, images: Images, schedule: Schedule, first: int
) -> dict[str, Any]:
    number = first + row["id"]
    epoch, place = divmod(number, schedule.num_batches)
    rows: Corpus = ray.get(corpus)
    batch = make_batch(rows, schedule.queries(epoch)[place], schedule.captions(epoch)[place])
    if not isinstance(images, SharedImages):
        batch["images"] = images.take(batch["images"])
    return {**batch, "number": number}


def num_pixel_bytes(count: int, fit: Fit) -> int:
    """Bytes that the decoded pixels of `count` images take."""
    return count * 3 * fit.height_px * fit.width_px
