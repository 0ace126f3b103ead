"""Adds the vectors that an encoder's table lacks: copies those of its parent, or embeds the images.

`kallos index` does this for one encoder, `kallos ingest` for the other encoders in use.
"""

from collections.abc import Iterable
from contextlib import suppress
from functools import partial

import pyarrow as pa
import ray.data
from pyarrow import compute as pc

from actors.encoder import Encoder
from actors.images import STORED, UnusableImage, read_stored
from actors.stages import embed, streaming_context
from actors.stored_pixels import COLUMNS, prepare_stored
from actors.vectors import VectorTable
from cluster import session, terminal
from cluster.compat.ray_data import read_lance
from cluster.errors import UserError
from cluster.profile import EncoderModel, Profile
from cluster.tables import EncoderRecord, Store, embeddings_table

COPY_ROWS = 10_000
COUNTS: tuple[str, ...] = ("num_copied", "num_embedded", "num_from_preview", "num_unreadable_images")


def missing_images(store: Store, fingerprint: str, where: str | None = None) -> pa.Table:
    """`image_id`, `added_at` of the images without a vector; `where`: SQL filter on the images."""
    return without_vector(store, fingerprint, store.read("images", ["image_id", "added_at"], where))


def without_vector(store: Store, fingerprint: str, images: pa.Table) -> pa.Table:
    """The rows of `images` whose `image_id` is not in the encoder's table."""
    name = embeddings_table(fingerprint)
    if not store.exists(name):
        return images
    present = store.read(name, columns=["image_id"])["image_id"].combine_chunks()
    return images.filter(pc.invert(pc.is_in(images["image_id"], value_set=present)))


def first_readable(store: Store, image_ids: Iterable[str]) -> str | None:
    """The first of these images that `kallos index` could embed; None if all are gone or unreadable."""
    for row in store.rows_of("images", STORED, image_ids):
        with suppress(UnusableImage):
            read_stored(row)
            return row["image_id"]
    return None


def add_vectors(
    vectors: VectorTable, profile: Profile, record: EncoderRecord, encoder: Encoder, missing: pa.Table
) -> dict[str, int]:
    """Add the vectors of the images `missing` (from `missing_images`).

    Returns the counts `COUNTS`; num_from_preview of the embedded images were not read from their file.
    """
    num_copied = copy_from_parent(vectors, record, encoder, missing)
    if num_copied:
        missing = without_vector(vectors.store, record.encoder, missing)
    return {"num_copied": num_copied, **embed_missing(vectors, profile, record, encoder, missing)}


def copy_from_parent(vectors: VectorTable, record: EncoderRecord, encoder: Encoder, missing: pa.Table) -> int:
    """Copy the parent's vectors if both encoders have the same image tower; returns their number."""
    store = vectors.store
    if not len(missing) or not record.parent or not store.exists(embeddings_table(record.parent)):
        return 0
    if not _same_image_tower(store, record.parent, encoder):
        return 0
    table, ids = store.open(embeddings_table(record.parent)).to_lance(), _ids(missing)
    batches = table.to_batches(batch_size=COPY_ROWS, filter=_not_older(missing))
    tables = (pa.Table.from_batches([batch]) for batch in batches)
    return sum(vectors.merge(rows.filter(pc.is_in(rows["image_id"], value_set=ids))) for rows in tables)


def _same_image_tower(store: Store, parent: str, encoder: Encoder) -> bool:
    try:
        checkpoint = store.encoder(parent).checkpoint
        return Encoder.load(checkpoint).image_fingerprint == encoder.image_fingerprint
    except UserError:
        return False  # the parent's folder is gone; embedding gives the same vectors


def embed_missing(
    vectors: VectorTable, profile: Profile, record: EncoderRecord, encoder: Encoder, missing: pa.Table
) -> dict[str, int]:
    """Embed the images `missing` with a pool of actors, and merge each batch of vectors as it arrives."""
    counts = dict.fromkeys(COUNTS[1:], 0)
    if not len(missing):
        return counts
    model = profile.encoder.model_copy(update={"model": record.checkpoint})
    session.connect(profile)
    session.require({"decode": model.decode, "encode": model.stage})
    with streaming_context(), terminal.progress("embed", "images", len(missing)) as update:
        prepare = partial(prepare_stored, fit=encoder.fit, missing=_ids(missing))
        dataset = embed(pixel_rows(vectors.store, model, prepare, _not_older(missing)), model)
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            assert isinstance(batch, pa.Table)
            batch = batch.filter(batch["vector"].is_valid())
            counts["num_embedded"] += vectors.merge(batch)
            counts["num_from_preview"] += pc.sum(batch["from_preview"]).as_py() or 0
            update(counts["num_embedded"])
    if unreadable := without_vector(vectors.store, record.encoder, missing)["image_id"].to_pylist():
        counts["num_unreadable_images"] = len(unreadable)
        terminal.say(
            f"{len(unreadable)} images have no vector: neither file nor preview can be read and embedded. "
            f"The first is {unreadable[0]}; `kallos delete --image-ids` removes them"
        )
    return counts


def pixel_rows(store: Store, model: EncoderModel, prepare: partial, where: str) -> ray.data.Dataset:
    """A Ray dataset over the rows of `images`, with `pixels`; `where`: SQL filter on the images."""
    uri, decode = store.open("images").to_lance().uri, model.decode
    rows = read_lance(uri, COLUMNS, where, num_cpus=decode.num_cpus, num_tasks=decode.max_actors)
    return rows.map_batches(
        prepare,
        batch_size=decode.batch_size,
        batch_format="pyarrow",
        num_cpus=decode.num_cpus,
        compute=ray.data.TaskPoolStrategy(size=decode.max_actors),
    )


def _ids(images: pa.Table) -> pa.Array:
    return images["image_id"].combine_chunks()


def _not_older(missing: pa.Table) -> str:
    """SQL condition for images added no earlier than the first of `missing`.

    In a large store with a few new images, Lance then reads only those, not every preview and vector.
    """
    return f"added_at >= timestamp '{pc.min(missing['added_at']).as_py():%Y-%m-%d %H:%M:%S.%f}'"
