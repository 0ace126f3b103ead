"""The CPU stage of embedding stored images: rows of `images` -> the encoder's pixels.

Runs in Ray tasks, without torch or LanceDB.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pyarrow as pa
from pyarrow import compute as pc

from actors.images import STORED, Fit, UnusableImage, decode, pixels, read_stored_file

META = ("image_id", "caption", "width_px", "height_px", "tags", "source", "added_at")
COLUMNS = (*META, "uri", "preview")


def prepare_stored(batch: pa.Table, *, fit: Fit, missing: pa.Array) -> pa.Table:
    """Rows of `images` -> those in `missing`; `pixels`, `from_preview` replace `uri`, `preview`.

    An image of which neither the file nor the preview can be read is left out.
    """
    batch = batch.filter(pc.is_in(batch["image_id"], value_set=missing))
    prepared = [_pixels_of(row, fit) for row in batch.select(STORED).to_pylist()]
    raw = pa.array([data for data, _ in prepared], pa.binary(3 * fit.height_px * fit.width_px))
    from_preview = pa.array([flag for _, flag in prepared], pa.bool_())
    batch = batch.drop_columns(["uri", "preview"])
    return (
        batch.append_column("pixels", raw).append_column("from_preview", from_preview).filter(raw.is_valid())
    )


def _pixels_of(row: Mapping[str, Any], fit: Fit) -> tuple[bytes | None, bool]:
    """(pixels, whether from the preview): the preview replaces a file that is gone or has changed."""
    with suppress(UnusableImage):
        return pixels(read_stored_file(row, max(fit.height_px, fit.width_px)), fit).tobytes(), False
    with suppress(UnusableImage):
        return pixels(decode(row["preview"]), fit).tobytes(), True
    return None, True
