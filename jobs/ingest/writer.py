"""The end of the pipeline: merges batches into the tables as they arrive, so a killed run keeps its work."""

import time
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
from pyarrow import compute as pc

from actors.encoder import Encoder
from actors.vectors import VectorTable
from cluster.errors import JobFailure, shown
from cluster.tables import SCHEMAS, Store, now
from jobs.ingest.prepare import IGNORED, KNOWN, NEW, REJECTED
from jobs.ingest.sources.listing import ending

FLUSH_ROWS = 2048


class Writer:
    """Collects embedded rows and merges them, vectors first: an image in `images` always has its vector."""

    def __init__(self, store: Store, encoder: Encoder, label: str, flush_seconds: float = 5.0) -> None:
        """`label` fills the column `source`; rows wait at most `flush_seconds`."""
        self.store = store
        self.vectors = VectorTable(store, encoder)
        self.label = label
        self.flush_seconds = flush_seconds
        self.counts: dict[str, int] = dict.fromkeys(
            ("num_inputs", "num_images", "num_embeddings", "num_known", "num_duplicates", "num_rejects"), 0
        )
        self.ignored: Counter[str] = Counter()  # by ending
        self._rejected: set[tuple[str, str]] = set()
        self._waiting: list[pa.Table] = []
        self._flushed = time.monotonic()

    @property
    def progress(self) -> dict[str, int]:
        """The counts as `terminal.Update` takes them; rows that wait for a merge are not counted yet."""
        counts = self.counts
        new, known, rejected = (counts[f"num_{name}"] for name in ("images", "known", "rejects"))
        return {"done": counts["num_inputs"], "new": new, "known": known, "rejected": rejected}

    def add(self, batch: pa.Table) -> None:
        """Take a batch of `prepared_schema` with `vector`; merge after enough rows or seconds."""
        self._waiting.append(_without_vector_rejected(batch))
        num_rows = sum(table.num_rows for table in self._waiting)
        if num_rows >= FLUSH_ROWS or time.monotonic() - self._flushed > self.flush_seconds:
            self.flush()

    def reject_inputs(self, rejects: Sequence[tuple[str, str]]) -> None:
        """Record inputs that were rejected before reading, as (uri, reason)."""
        self._reject([{"uri": uri, "stage": "list", "error": error} for uri, error in rejects])

    def flush(self) -> None:
        """Merge the waiting rows."""
        waiting, self._waiting, self._flushed = self._waiting, [], time.monotonic()
        if not waiting:
            return
        rows = pa.concat_tables(waiting)
        ignored = _with_status(rows, IGNORED)["uri"].to_pylist()
        self.ignored.update(ending(str(uri)) for uri in ignored)
        known = _with_status(rows, KNOWN).num_rows
        self.counts["num_inputs"] += known
        self.counts["num_known"] += known
        self._insert(_with_status(rows, NEW))
        self._reject(_with_status(rows, REJECTED).select(["uri", "stage", "error"]).to_pylist())

    def require_images(self) -> None:
        """Raise JobFailure if there was no input, or every one was rejected."""
        if not self.counts["num_inputs"]:
            raise JobFailure("The source's tables or tars hold no image: give another --source.")
        if self._rejected and not self.counts["num_images"] and not self.counts["num_known"]:
            uri, error = min(self._rejected)
            raise JobFailure(
                f"All {self.counts['num_inputs']} inputs were rejected: table rejects of {self.store.uri} "
                f"has the reasons, such as {shown(uri)}: {error}."
            )

    def _insert(self, rows: pa.Table) -> None:
        if not rows.num_rows:
            return
        moment = pa.scalar(now(), SCHEMAS["images"].field("added_at").type)
        rows = rows.append_column("source", pa.array([self.label] * rows.num_rows, pa.string()))
        rows = rows.append_column("added_at", pa.repeat(moment, rows.num_rows))
        vectors = self.vectors.merge(rows)
        images = self.store.merge("images", rows, on=["image_id"])
        self.counts["num_inputs"] += rows.num_rows
        self.counts["num_embeddings"] += vectors
        self.counts["num_images"] += images
        # An image that was stored without a vector of this encoder gets one, but is not new.
        self.counts["num_known"] += max(0, vectors - images)
        self.counts["num_duplicates"] += rows.num_rows - max(vectors, images)

    def _reject(self, rows: list[dict]) -> None:
        """Record rejects; one with the same address and reason as another is a duplicate."""
        new = {(row["uri"], row["error"]) for row in rows} - self._rejected
        self._rejected |= new
        self.counts["num_inputs"] += len(rows)
        self.counts["num_rejects"] += len(new)
        self.counts["num_duplicates"] += len(rows) - len(new)
        if rows:
            moment = now()
            table = pa.Table.from_pylist([{**row, "at": moment} for row in rows], SCHEMAS["rejects"])
            self.store.merge("rejects", table, on=["uri", "error"])


def _without_vector_rejected(rows: pa.Table) -> pa.Table:
    """The rows, in which new images without a usable vector have become rejects."""
    broken = pc.and_(pc.equal(rows["status"], pa.scalar(NEW)), rows["vector"].is_null())
    if not pc.any(broken).as_py():
        return rows
    reject = {"status": REJECTED, "stage": "embed", "error": "the encoder gives no finite vector for it"}
    for name, value in reject.items():
        column = pc.if_else(broken, pa.scalar(value), rows[name])
        rows = rows.set_column(rows.column_names.index(name), name, column)
    return rows


def _with_status(rows: pa.Table, status: str) -> pa.Table:
    return rows.filter(pc.equal(rows["status"], pa.scalar(status)))
