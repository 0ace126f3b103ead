"""The CPU stage: rows of any source -> checked rows with identity, preview and the encoder's pixels.

Runs in Ray tasks, fused with the reading: a file's bytes never travel. Imports neither torch nor LanceDB.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from actors import images
from actors.images import Fit, UnusableImage
from jobs.ingest.lookup import Lookup
from jobs.ingest.words import NO_WORDS, Words

NEW, KNOWN, REJECTED = "new", "known", "rejected"


@dataclass(frozen=True)
class Raw:
    """A row as its source gives it: the file's bytes, or why there are none."""

    uri: str
    data: bytes
    words: Words = NO_WORDS
    error: str = ""


@dataclass(frozen=True)
class Recipe:
    """What is made of each image."""

    fit: Fit
    preview_px: int
    max_pixels: int


@lru_cache
def prepared_schema(fit: Fit) -> pa.Schema:
    """Columns between the stages; `pixels`: raw uint8 of [3, H, W], null unless to be embedded."""
    return pa.schema(
        {
            "status": pa.string(),
            "uri": pa.string(),
            "image_id": pa.string(),
            "caption": pa.string(),
            "detailed_caption": pa.string(),
            "tags": pa.list_(pa.string()),
            "width_px": pa.int32(),
            "height_px": pa.int32(),
            "preview": pa.binary(),
            "pixels": pa.binary(3 * fit.height_px * fit.width_px),
            "stage": pa.string(),
            "error": pa.string(),
        }
    )


def prepare(
    batch: pa.Table, *, rows: Callable[[pa.Table], Iterable[Raw]], recipe: Recipe, known: Lookup
) -> pa.Table:
    """A batch of source rows -> as many rows of `prepared_schema`. Never raises for an image."""
    prepared = [prepare_row(raw, recipe, known) for raw in rows(batch)]
    return pa.Table.from_pylist(prepared, prepared_schema(recipe.fit))


def prepare_row(raw: Raw, recipe: Recipe, known: Lookup) -> dict:
    """One image: identity, then, unless it is known, upright RGB, preview and pixels from one decoding."""
    if raw.error:
        return {"status": REJECTED, "uri": raw.uri, "stage": "read", "error": raw.error}
    identity = images.image_id(raw.data)
    if identity in known:
        return {"status": KNOWN, "uri": raw.uri, "image_id": identity}
    try:
        decoded = images.read_for(
            raw.data, recipe.fit, max_pixels=recipe.max_pixels, preview_px=recipe.preview_px
        )
        preview = images.preview_jpeg(decoded.image, recipe.preview_px)
        pixels = images.pixels(decoded.image, recipe.fit).tobytes()
    except UnusableImage as error:
        return {"status": REJECTED, "uri": raw.uri, "stage": "decode", "error": str(error)}
    except Exception as error:  # of a kind that nobody thought of: one image does not end the job
        reason = f"cannot be resized: {type(error).__name__}: {error}"
        return {"status": REJECTED, "uri": raw.uri, "stage": "decode", "error": reason}
    return {
        "status": NEW,
        "uri": raw.uri,
        "image_id": identity,
        "caption": raw.words.caption,
        "detailed_caption": raw.words.detailed_caption,
        "tags": list(raw.words.tags),
        "width_px": decoded.width_px,
        "height_px": decoded.height_px,
        "preview": preview,
        "pixels": pixels,
    }
