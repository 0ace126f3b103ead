"""Feeds training with Ray Data: batches made in tasks, images from shared memory or decoded on the way.

`batches(...)` is one epoch as a Ray Dataset with one batch a block. In mode `text` a batch carries the
stored vectors of its images; in mode `both` their pixels, which are decoded once into shared memory when
they fit there, and otherwise in the task that makes the batch.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import ray
from pyarrow import fs

from actors.images import Fit, UnusableImage, decode, pixels
from cluster.errors import UserError
from cluster.tables import Store
from jobs.align.batches import Corpus, Schedule, make_batch

PREVIEW_PX = 256  # longer side of the stored previews
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
    """Decoded from the store at each use. `places`: for each image of the corpus its row in the table."""

    store: Store
    version: int  # of the images table in which `places` hold
    places: np.ndarray
    fit: Fit

    @property
    def column(self) -> str:
        """Previews are quick; an encoder that looks closer than they are gets the files themselves."""
        return "preview" if max(self.fit.height_px, self.fit.width_px) <= PREVIEW_PX else "uri"

    def take(self, rows: np.ndarray) -> np.ndarray:
        table = self.store.open("images").to_lance().checkout_version(self.version)
        found = table.take(self.places[rows].tolist(), columns=["image_id", self.column]).to_pylist()
        return np.stack([self._pixels(row["image_id"], row[self.column]) for row in found])

    def _pixels(self, image_id: str, content: bytes | str) -> np.ndarray:
        try:
            data = content if isinstance(content, bytes) else read_file(content)
            return pixels(decode(data), self.fit)
        except (UnusableImage, OSError) as error:
            raise UserError(f"Image {image_id} cannot be read for training: {error}.") from error


def read_file(uri: str) -> bytes:
    """The bytes of a local path or of an address that pyarrow knows (s3://, gs://, ...)."""
    filesystem, path = fs.FileSystem.from_uri(uri) if "://" in uri else (fs.LocalFileSystem(), uri)
    with filesystem.open_input_stream(path) as stream:
        return stream.read()


def share_pixels(images: StoredImages) -> SharedImages:
    """Decode every image once, in Ray Data tasks, into one uint8 array [N, 3, H, W] in the object store."""
    count, fit = len(images.places), images.fit
    array = np.empty((count, 3, fit.height_px, fit.width_px), np.uint8)
    num_tasks = -(-count // IMAGES_PER_TASK)
    decoded = ray.data.range(count, override_num_blocks=num_tasks).map_batches(_decode, fn_args=(images,))
    for batch in decoded.iter_batches(batch_size=None, batch_format="numpy"):
        array[batch["id"]] = batch["pixels"]
    return SharedImages(ray.put(array))


def _decode(batch: dict[str, np.ndarray], images: StoredImages) -> dict[str, np.ndarray]:
    return {"id": batch["id"], "pixels": images.take(batch["id"])}


def batches(corpus: ray.ObjectRef, images: Images, schedule: Schedule, epoch: int) -> "ray.data.Dataset":
    """One epoch's batches, as `make_batch` gives them with `images` replaced by the images themselves.

    Block i is batch i alone: split in order among W workers, worker r gets batches r, r + W, r + 2 W, ...
    `corpus` is a reference to a `Corpus`.
    """
    numbers = ray.data.range(schedule.num_batches, override_num_blocks=schedule.num_batches)
    return numbers.map(_batch, fn_args=(corpus, images, schedule, epoch))


def _batch(
    row: dict[str, Any], corpus: ray.ObjectRef | Corpus, images: Images, schedule: Schedule, epoch: int
) -> dict[str, Any]:
    number = row["id"]
    corpus = ray.get(corpus) if isinstance(corpus, ray.ObjectRef) else corpus
    batch = make_batch(corpus, schedule.queries(epoch)[number], schedule.captions(epoch)[number])
    return {**batch, "number": number, "images": images.take(batch["images"])}


def num_pixel_bytes(count: int, fit: Fit) -> int:
    """Bytes that the decoded pixels of `count` images take."""
    return count * 3 * fit.height_px * fit.width_px
