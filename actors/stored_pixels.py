"""The CPU stage of embedding stored images: rows of `images` -> the encoder's pixels.

Runs in Ray tasks, without torch or LanceDB.
"""

from collections.abc import Iterator

import pyarrow as pa
from pyarrow import compute as pc

from actors.images import Fit, UnusableImage, pixels, read_for, read_original

META = ("image_id", "caption", "width_px", "height_px", "tags", "source", "added_at")
COLUMNS = (*META, "uri", "preview")


def prepare_stored(batch: pa.Table, *, fit: Fit, missing: pa.Array) -> pa.Table:
    """Rows of `images` -> those in `missing`; `pixels`, `from_preview` replace `uri`, `preview`."""
    batch = batch.filter(pc.is_in(batch["image_id"], value_set=missing))
    prepared = list(_pixels_of(batch.select(["image_id", "uri", "preview"]).to_pylist(), fit))
    raw = pa.array([data for data, _ in prepared], pa.binary(3 * fit.height_px * fit.width_px))
    from_preview = pa.array([flag for _, flag in prepared], pa.bool_())
    batch = batch.drop_columns(["uri", "preview"])
    return batch.append_column("pixels", raw).append_column("from_preview", from_preview)


def _pixels_of(rows: list[dict], fit: Fit) -> Iterator[tuple[bytes, bool]]:
    """(pixels, whether from the preview): the preview replaces a file that is gone or has changed."""
    for row in rows:
        data = _original(row)
        decoded = read_for(data or row["preview"], fit)
        yield pixels(decoded.image, fit).tobytes(), not data


def _original(row: dict) -> bytes:
    """The file's bytes, empty if it is gone or has changed."""
    try:
        return read_original(row)
    except UnusableImage:
        return b""
