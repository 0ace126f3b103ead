"""What alignment has trained on: queries and images, which an evaluation excludes, and whose judgements."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from cluster.errors import UserError
from cluster.schemas import HUMAN
from cluster.sql import in_list
from cluster.tables import EncoderRecord, Store


def queries(store: Store) -> frozenset[str]:
    """The queries that were labelled or calibrated on, and those for which people chose a result."""
    tables = [name for name in ("rankings", "preferences", "voted_pairs") if store.exists(name)]
    return frozenset(text for name in tables for text in store.read(name, ["query"]).to_pydict()["query"])


def captioned_images(store: Store, records: Sequence[EncoderRecord]) -> frozenset[str] | None:
    """image_ids whose captions trained the encoders, or any encoder they were aligned from, or chose alpha.

    None if that is unknown, because an encoder's training state was removed or is on another machine.
    """
    found: set[str] = set()
    for record in _aligned(store, records):
        training = record.metrics.get("align", {}).get("training")
        if not training or not (corpus := Path(store.locate(training)) / "corpus").is_dir():
            return None
        images = parquet.read_table(corpus / "images.parquet")["image_id"]
        for name in ("captions", "guard"):
            captioned = parquet.read_table(corpus / f"{name}.parquet")["image"]
            found.update(map(str, images.take(pa.chunked_array(captioned.chunks)).to_pylist()))
    return frozenset(found)


def judges(store: Store, records: Sequence[EncoderRecord]) -> frozenset[str]:
    """The judges of the preferences that the encoders, or any encoder they were aligned from, trained on.

    Names as in the column `judge`, without the scorers' part; people are not among them.
    """
    found: set[str] = set()
    for record in _aligned(store, records) if store.exists("preferences") else ():
        runs = [name for name in record.metrics.get("align", {}).get("run_id", "").split(",") if name]
        rows = store.read("preferences", ["judge"], in_list("run_id", runs) if runs else None)
        found.update(map(str, rows["judge"].unique().to_pylist()))
    models = {name.partition("+")[2] if name.startswith("scorer:") else name for name in found - {HUMAN}}
    return frozenset(models - {""})


def _aligned(store: Store, records: Sequence[EncoderRecord]) -> Iterator[EncoderRecord]:
    """Those of the encoders and their ancestors that came from an alignment."""
    waiting, seen = list(records), set()
    while waiting:
        record = waiting.pop()
        if not record.parent or record.encoder in seen:
            continue
        seen.add(record.encoder)
        yield record
        try:
            waiting.append(store.encoder(record.parent))
        except UserError:  # the parent is not registered in this store
            continue
