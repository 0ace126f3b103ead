"""The images of an evaluation as the store holds them: ids, vectors and rows."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from actors.missing_vectors import first_readable
from actors.vectors import vector_matrix
from cluster import terminal
from cluster.errors import UserError
from cluster.sql import in_list
from cluster.tables import EncoderRecord, Store, embeddings_table

BLOCK_ROWS = 8192


def common_gallery(store: Store, records: Sequence[EncoderRecord], where: str | None) -> set[str]:
    """image_ids of the gallery. Raises UserError when it is empty, or differs between the encoders."""
    galleries = [embedded_ids(store, record.encoder, where) for record in records]
    filtered = f" with --where {where!r}" if where else ""
    for record, gallery in zip(records, galleries, strict=True):
        if not gallery:
            raise UserError(
                f"encoder {record.encoder} has no images{filtered}: run `kallos index` or correct --where"
            )
        if gallery != galleries[0]:
            raise UserError(
                f"encoders {records[0].encoder} and {record.encoder} have different galleries{filtered} "
                f"({len(galleries[0])} and {len(gallery)} images): narrow --where to images that both have, "
                f"or run `kallos index --encoder {record.encoder}`"
            )
    return galleries[0]


def comparable_images(store: Store, records: Sequence[EncoderRecord], where: str | None) -> str | None:
    """The filter `where`, without unreadable images, which not every encoder has embedded."""
    galleries = [embedded_ids(store, record.encoder, where) for record in records]
    lacking = set.union(*galleries) - set.intersection(*galleries)
    if not lacking or first_readable(store, lacking):
        return where  # `common_gallery` then names the encoder that lacks images
    terminal.say(
        f"evaluate: {len(lacking)} images are left out, such as {min(lacking)}: they are gone or cannot be "
        "read, and not every encoder has embedded them"
    )
    kept = f"NOT ({in_list('image_id', sorted(lacking))})"
    return f"({where}) AND {kept}" if where else kept


def embedded_ids(store: Store, fingerprint: str, where: str | None = None) -> set[str]:
    """image_ids that the encoder has embedded. Raises UserError without a table or for an invalid filter."""
    return set(store.read(embeddings_table(fingerprint), ["image_id"], where).to_pydict()["image_id"])


def scan_vectors(store: Store, table: str, where: str | None) -> Iterator[tuple[list[str], np.ndarray]]:
    """(image_ids, vectors float32 [N, D]) block by block, filtered by `where` (SQL)."""
    query = store.open(table).search().select(["image_id", "vector"])
    query = query.where(where) if where else query
    for batch in query.to_batches(batch_size=BLOCK_ROWS):
        if batch.num_rows:
            yield batch["image_id"].to_pylist(), vector_matrix(batch["vector"])


def vectors_of(store: Store, table: str, image_ids: Iterable[str]) -> dict[str, np.ndarray]:
    """image_id -> vector float32 [D] of those images."""
    found = store.rows_of(table, ["image_id", "vector"], image_ids)
    return {row["image_id"]: np.asarray(row["vector"], np.float32) for row in found}
