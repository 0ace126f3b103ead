"""The images of a training corpus: stored vectors in mode `text`, pixels in mode `both`.

Vectors, and pixels that fit in the cache, are one array in Ray's object store, from which a worker takes the
rows of each batch. Other pixels are decoded in the task that makes the batch.
"""

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
    table_rows: np.ndarray  # the row of each image of the corpus in that table
    fit: Fit

    def take(self, rows: np.ndarray) -> np.ndarray:
        table = self.store.open("images").to_lance().checkout_version(self.version)
        stored = table.take(self.table_rows[rows].tolist(), columns=list(STORED)).to_pylist()
        return np.stack([self._pixels(row) for row in stored])

    def _pixels(self, row: dict[str, Any]) -> np.ndarray:
        try:
            image = read_stored(row, shorter_px=max(self.fit.height_px, self.fit.width_px))
        except UnusableImage as error:
            raise UserError(
                f"Image {row['image_id']} cannot be read for training: {error}. Remove it with "
                f"`kallos delete --image-ids {row['image_id']}`."
            ) from error
        return pixels(image, self.fit)


def load_images(store: Store, corpus: Corpus, parent: Encoder, profile: Profile, settings: Align) -> Images:
    """The images of the corpus: vectors in mode `text`; else pixels, shared if they fit in the cache."""
    if settings.mode == "text":
        return SharedImages(ray.put(read_vectors(store, parent.fingerprint, corpus.image_ids)))
    table_rows = find_rows(store, "images", corpus.image_ids)
    stored = StoredImages(store, store.open("images").to_lance().version, table_rows, parent.fit)
    num_bytes = len(table_rows) * 3 * parent.fit.height_px * parent.fit.width_px
    if num_bytes > settings.pixel_cache_bytes:
        terminal.say(
            f"align: the pixels take {num_bytes:,} bytes, more than align.pixel_cache_bytes "
            f"{settings.pixel_cache_bytes:,}: images are decoded at every use"
        )
        return stored
    return share_pixels(stored, profile.encoder.decode.max_actors)


def share_pixels(images: StoredImages, num_tasks: int) -> SharedImages:
    """Decode every image once, in `num_tasks` tasks, into one array [N, 3, H, W] in the object store."""
    count, fit = len(images.table_rows), images.fit
    array = np.empty((count, 3, fit.height_px, fit.width_px), np.uint8)
    rows = ray.data.range(count, override_num_blocks=-(-count // IMAGES_PER_TASK))
    decode = cast(Any, _decode)  # Ray's types allow no arguments besides the batch
    decoded = rows.map_batches(decode, fn_args=(images,), compute=ray.data.TaskPoolStrategy(size=num_tasks))
    for batch in decoded.iter_batches(batch_size=None, batch_format="numpy"):
        array[batch["id"]] = batch["pixels"]
    return SharedImages(ray.put(array))


def _decode(batch: dict[str, np.ndarray], images: StoredImages) -> dict[str, np.ndarray]:
    return {"id": batch["id"], "pixels": images.take(batch["id"])}
