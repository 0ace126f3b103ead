"""The CPU stage: rows of any source -> checked rows with image id, preview and the encoder's pixels.

It runs in the Ray tasks that read the source, so a file's bytes never cross the network. It imports neither
torch nor LanceDB.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import pyarrow as pa

from actors import images
from actors.images import Fit, UnusableImage
from cluster.schemas import SCHEMAS
from jobs.ingest.lookup import Lookup
from jobs.ingest.sources.image_text import ImageText

NEW, KNOWN, REJECTED, IGNORED = "new", "known", "rejected", "ignored"


@dataclass(frozen=True)
class SourceRow:
    """One image of a source: the file's bytes, or the reason why they could not be read.

    ignored: it is not an image, and only counted.
    """

    uri: str
    data: bytes
    text: ImageText = field(default_factory=ImageText)
    error: str = ""
    ignored: bool = False


@dataclass(frozen=True)
class DecodeSettings:
    """Sizes of the encoder's input and the preview, and the maximum number of pixels of an image."""

    fit: Fit
    preview_px: int
    max_pixels: int


@lru_cache
def prepared_schema(fit: Fit) -> pa.Schema:
    """Columns that the CPU stage emits; `pixels`: raw uint8 [3, H, W], null unless the image is new."""
    stored = [column for column in SCHEMAS["images"] if column.name not in ("source", "added_at")]
    outcome = {"status": pa.string(), "stage": pa.string(), "error": pa.string()}
    pixels = pa.binary(3 * fit.height_px * fit.width_px)
    return pa.schema([*stored, *pa.schema({**outcome, "pixels": pixels})])


def prepare(
    batch: pa.Table,
    *,
    rows: Callable[[pa.Table], Iterable[SourceRow]],
    settings: DecodeSettings,
    known: Lookup,
) -> pa.Table:
    """A batch of a source -> one row of `prepared_schema` per image. Never raises for a bad image."""
    prepared = [prepare_row(row, settings, known) for row in rows(batch)]
    return pa.Table.from_pylist(prepared, prepared_schema(settings.fit))


def prepare_row(row: SourceRow, settings: DecodeSettings, known: Lookup) -> dict:
    """One row of `prepared_schema`; a new image is decoded once, for both its preview and its pixels."""
    if row.ignored:
        return {"status": IGNORED, "uri": row.uri}
    if error := row.error or row.text.error:
        return {"status": REJECTED, "uri": row.uri, "stage": "read", "error": error}
    image_id = images.image_id(row.data)
    if image_id in known:
        return {"status": KNOWN, "uri": row.uri, "image_id": image_id}
    try:
        decoded = images.read_for(
            row.data, settings.fit, max_pixels=settings.max_pixels, preview_px=settings.preview_px
        )
        preview = images.preview_jpeg(decoded.image, settings.preview_px)
        pixels = images.pixels(decoded.image, settings.fit).tobytes()
    except UnusableImage as error:
        return {"status": REJECTED, "uri": row.uri, "stage": "decode", "error": str(error)}
    except Exception as error:  # Pillow may raise almost anything, and one image must not end the job
        reason = f"cannot be resized: {type(error).__name__}: {error}"
        return {"status": REJECTED, "uri": row.uri, "stage": "decode", "error": reason}
    return {
        "status": NEW,
        "uri": row.uri,
        "image_id": image_id,
        "caption": row.text.caption,
        "detailed_caption": row.text.detailed_caption,
        "tags": list(row.text.tags),
        "width_px": decoded.width_px,
        "height_px": decoded.height_px,
        "preview": preview,
        "pixels": pixels,
    }
