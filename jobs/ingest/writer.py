"""The end of the pipeline: merges batches into the tables as they arrive, so a killed run keeps its work."""

import time
from collections.abc import Sequence
from typing import IO

import pyarrow as pa
from pyarrow import compute as pc

from actors.encoder import Encoder
from actors.vectors import VectorTable
from cluster.tables import SCHEMAS, Store, now
from jobs.ingest.prepare import KNOWN, NEW, REJECTED

FLUSH_ROWS = 2048
SHOW_SECONDS = 2.0


class Writer:
    """Collects embedded rows and merges them, vectors first: an image in `images` always has its vector."""

    def __init__(self, store: Store, encoder: Encoder, label: str, flush_seconds: float = 5.0) -> None:
        """`label` fills the column `source`; rows wait at most `flush_seconds`."""
        self.store = store
        self.vectors = VectorTable(store, encoder)
        self.label = label
        self.flush_seconds = flush_seconds
        self.counts = dict.fromkeys(
            ("num_inputs", "num_images", "num_embeddings", "num_known", "num_duplicates", "num_rejects"), 0
        )
        self._waiting: list[pa.Table] = []
        self._flushed = time.monotonic()

    def add(self, batch: pa.Table) -> None:
        """Take a batch of `prepared_schema` with `vector`; merge once enough rows or seconds gathered."""
        self._waiting.append(batch)
        num_rows = sum(table.num_rows for table in self._waiting)
        if num_rows >= FLUSH_ROWS or time.monotonic() - self._flushed > self.flush_seconds:
            self.flush()

    def reject_inputs(self, rejects: Sequence[tuple[str, str]]) -> None:
        """Record inputs that were rejected before reading, as (uri, reason)."""
        self.counts["num_inputs"] += len(rejects)
        self._reject([{"uri": uri, "stage": "list", "error": error} for uri, error in rejects])

    def flush(self) -> None:
        """Merge the waiting rows."""
        rows = pa.concat_tables(self._waiting) if self._waiting else None
        self._waiting, self._flushed = [], time.monotonic()
        if rows is None or not rows.num_rows:
            return
        self.counts["num_inputs"] += rows.num_rows
        self.counts["num_known"] += pc.sum(pc.equal(rows["status"], pa.scalar(KNOWN))).as_py()
        self._insert(rows.filter(pc.equal(rows["status"], pa.scalar(NEW))))
        rejected = rows.filter(pc.equal(rows["status"], pa.scalar(REJECTED)))
        self._reject(rejected.select(["uri", "stage", "error"]).to_pylist())

    def _insert(self, rows: pa.Table) -> None:
        if not rows.num_rows:
            return
        moment = pa.scalar(now(), SCHEMAS["images"].field("added_at").type)
        rows = rows.append_column("source", pa.array([self.label] * rows.num_rows, pa.string()))
        rows = rows.append_column("added_at", pa.repeat(moment, rows.num_rows))
        inserted = self.vectors.merge(rows)
        self.counts["num_embeddings"] += inserted
        self.counts["num_images"] += self.store.merge("images", rows, on=["image_id"])
        self.counts["num_duplicates"] += rows.num_rows - inserted

    def _reject(self, rows: list[dict]) -> None:
        self.counts["num_rejects"] += len(rows)
        if rows:
            moment = now()
            table = pa.Table.from_pylist([{**row, "at": moment} for row in rows], SCHEMAS["rejects"])
            self.store.merge("rejects", table, on=["uri", "error"])


class Progress:
    """Prints one line of progress, at most every two seconds."""

    def __init__(self, total: int | None, stream: IO[str]) -> None:
        self.total = total
        self.stream = stream
        self._started = self._shown = time.monotonic()

    def show(self, counts: dict[str, int]) -> None:
        """Print the counts, unless they were printed less than two seconds ago."""
        moment = time.monotonic()
        if moment - self._shown < SHOW_SECONDS:
            return
        self._shown = moment
        of = f" of {self.total}" if self.total is not None else ""
        print(
            f"ingest: {counts['num_inputs']}{of} read, {counts['num_images']} new, "
            f"{counts['num_known']} known, {counts['num_rejects']} rejected, {moment - self._started:.0f} s",
            file=self.stream,
            flush=True,
        )
