"""The images of a training corpus: stored vectors in mode `text`, pixels in mode `both`.

Vectors, and pixels that fit in the cache, are one array in Ray's object store, from which a worker takes the
rows of each batch. Other pixels are decoded in the task that makes the batch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import ray
import ray.data

from actors.encoder import Encoder
from actors.images import STORED, Fit, UnusableImage, pixels, read_stored
from cluster import terminal
from cluster.errors import UserError
from cluster.profile import Align, Profile
from cluster.tables import Store
from jobs.align.batches import Corpus
from jobs.align.corpus import find_rows, read_vectors

IMAGES_PER_TASK = 256


class Images(Protocol):
    """The images of a corpus as the model takes them."""

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Rows of `Corpus.image_ids`, int [N] -> uint8 [N, 3, H, W] pixels, or float32 [N, dim] vectors."""
        ...


@dataclass(frozen=True)
class SharedImages:
    """All images as one array in Ray's object store, which every process of a node maps without a copy."""

    array: ray.ObjectRef

    def take(self, rows: np.ndarray) -> np.ndarray:
        return ray.get(self.array)[rows]


@dataclass(frozen=True)
class StoredImages:
    """Images that are decoded from the store at every use.

    Previews are fast to decode. If the encoder needs more pixels than the preview has, the file is read
    instead: the reference scores come from the file too.
    """

    store: Store
    version: int  # of the table `images`, for which `table_rows` are valid
    table_rows: np.ndarray  # the row of each image of the corpus in that table, -1 if it was deleted
    fit: Fit

    def take(self, rows: np.ndarray) -> np.ndarray:
        """See `Images`. Raises UserError for an image that can no longer be read."""
        taken, readable = self.read(rows)
        if not readable.all():
            lost = self.table_rows[rows][~readable][0]
            raise UserError(
                f"The image in row {lost} of table images can no longer be read for training: run "
                "`kallos align` again, which then leaves it out."
            )
        return taken

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels as `take`, and which images exist and can be read, bool [N]; the pixels of others are 0."""
        table = self.store.open("images").to_lance().checkout_version(self.version)
        places = self.table_rows[rows]
        readable = places >= 0
        found = np.zeros((len(rows), 3, self.fit.height_px, self.fit.width_px), np.uint8)
        if readable.any():
            stored = table.take(places[readable].tolist(), columns=list(STORED)).to_pylist()
            for index, row in zip(np.flatnonzero(readable), stored, strict=True):
                try:
                    image = read_stored(row, shorter_px=max(self.fit.height_px, self.fit.width_px))
                    found[index] = pixels(image, self.fit)
                except UnusableImage:
                    readable[index] = False
        return found, readable


def load_images(
    store: Store, corpus: Corpus, parent: Encoder, profile: Profile, settings: Align
) -> tuple[Images, np.ndarray]:
    """The images of the corpus, and which of them were deleted or cannot be read, bool [N].

    Vectors in mode `text`; else pixels, shared if they fit in the cache.
    """
    if settings.mode == "text":
        vectors, found = read_vectors(store, parent, corpus.image_ids)
        return SharedImages(ray.put(vectors)), ~found
    table = store.open("images").to_lance()
    stored = StoredImages(store, table.version, find_rows(table, corpus.image_ids), parent.fit)
    num_bytes = len(corpus.image_ids) * 3 * parent.fit.height_px * parent.fit.width_px
    num_tasks = profile.encoder.decode.max_actors
    if num_bytes > settings.pixel_cache_bytes:
        terminal.say(
            f"align: the pixels take {num_bytes:,} bytes, more than align.pixel_cache_bytes "
            f"{settings.pixel_cache_bytes:,}: images are decoded at every use"
        )
        return stored, find_unreadable(stored, num_tasks)
    return share_pixels(stored, num_tasks)


def share_pixels(images: StoredImages, num_tasks: int) -> tuple[SharedImages, np.ndarray]:
    """Decode every image once into one array [N, 3, H, W] in the object store; which failed, bool [N]."""
    count, fit = len(images.table_rows), images.fit
    array = np.empty((count, 3, fit.height_px, fit.width_px), np.uint8)
    lost = np.zeros(count, bool)
    for batch in _in_tasks(_decode, images, num_tasks):
        array[batch["id"]] = batch["pixels"]
        lost[batch["id"]] = batch["lost"]
    return SharedImages(ray.put(array)), lost


def find_unreadable(images: StoredImages, num_tasks: int) -> np.ndarray:
    """Decode every image once, without keeping the pixels; which failed, bool [N]."""
    lost = np.zeros(len(images.table_rows), bool)
    for batch in _in_tasks(_check, images, num_tasks):
        lost[batch["id"]] = batch["lost"]
    return lost


def _in_tasks(decode: Any, images: StoredImages, num_tasks: int) -> Iterable[dict[str, np.ndarray]]:
    """Blocks of what `decode` returns for all images, in any order."""
    count = len(images.table_rows)
    rows = ray.data.range(count, override_num_blocks=-(-count // IMAGES_PER_TASK))
    decoded = rows.map_batches(decode, fn_args=(images,), compute=ray.data.TaskPoolStrategy(size=num_tasks))
    return cast(Any, decoded.iter_batches(batch_size=None, batch_format="numpy"))


def _decode(batch: dict[str, np.ndarray], images: StoredImages) -> dict[str, np.ndarray]:
    found, readable = images.read(batch["id"])
    return {"id": batch["id"], "pixels": found, "lost": ~readable}


def _check(batch: dict[str, np.ndarray], images: StoredImages) -> dict[str, np.ndarray]:
    return {"id": batch["id"], "lost": ~images.read(batch["id"])[1]}
