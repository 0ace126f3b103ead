"""The index job: vectors for the images that have none, then the indexes, and how to search them."""

import sys
import time
from dataclasses import asdict
from functools import partial
from typing import Any

import lance_ray
import pyarrow as pa
from pyarrow import compute as pc

from actors.embedding import embed, streaming_context
from actors.encoder import Encoder
from actors.retriever import Retriever
from actors.vectors import VectorTable
from cluster import session
from cluster.errors import UserError
from cluster.profile import EncoderModel, Index, Profile
from cluster.tables import EncoderRecord, Store, embeddings_table
from jobs import command
from jobs.index import IndexConfig, tuning
from jobs.index.ann import EXACT, build_ann, compact, index_ids, num_unindexed
from jobs.index.stored import COLUMNS, prepare_stored

COPY_ROWS = 10_000


def index(config: IndexConfig) -> dict:
    """The whole job; see the package."""
    started = time.monotonic()
    profile, store = command.settings(config)
    record = store.encoder(config.encoder)
    encoder = load_registered(record)
    vectors = VectorTable(store, encoder)
    counts = dict.fromkeys(("num_copied", "num_embedded", "num_from_preview"), 0)
    if not config.optimize:
        counts["num_copied"] = copy_from_parent(vectors, record, encoder, config.where)
        counts |= embed_missing(vectors, profile, record, encoder, config.where)
    embed_s = time.monotonic() - started
    table = store.open(vectors.name)
    unindexed = num_unindexed(table)
    kind = bring_up_to_date(store, table, profile.index.ann_min_rows, compact_all=config.optimize)
    build_s = time.monotonic() - started - embed_s
    measured = measure(store, encoder, kind, profile.index)
    return {
        "encoder": encoder.fingerprint,
        "num_rows": table.count_rows(),
        **counts,
        "num_unindexed_rows": {"before": unindexed, "after": num_unindexed(table)},
        "index": kind,
        **measured,
        "seconds": {
            "embed": round(embed_s, 2),
            "build": round(build_s, 2),
            "total": round(time.monotonic() - started, 2),
        },
    }


def bring_up_to_date(store: Store, table: Any, ann_min_rows: int, *, compact_all: bool) -> str:
    """Indexes and files of `images` and the table of vectors; returns the kind of the vectors' index."""
    for one in (store.open("images"), table):
        index_ids(one, ann_min_rows)
        if compact_all:
            one.optimize()
        else:
            compact(one)
    return build_ann(table, ann_min_rows)


def measure(store: Store, encoder: Encoder, kind: str, settings: Index) -> dict[str, Any]:
    """Choose how hard the index is searched, keep that in `indexes`; returns the report's part about it."""
    retriever = Retriever(store, encoder.fingerprint, encoder)
    row = {"encoder": encoder.fingerprint, "kind": kind, "num_rows": retriever.table.count_rows()}
    if kind == EXACT or not row["num_rows"]:
        tuning.keep(store, row | {"recall_at_10": 1.0, "num_queries": 0})
        return {"recall@10": 1.0}
    queries = tuning.recall_queries(retriever, encoder, settings.num_recall_queries)
    swept = tuning.sweep(store, encoder.fingerprint, queries)
    chosen = tuning.choose(swept, settings.recall)
    tuning.keep(store, row | chosen.row() | {"num_queries": len(queries)})
    return {
        "recall@10": chosen.recall_at_10,
        "recall_target": settings.recall,
        "target_reached": chosen.recall_at_10 >= settings.recall,
        **asdict(chosen.effort),
        "p50_ms": chosen.p50_ms,
        "sweep": [one.row() for one in swept],
    }


def load_registered(record: EncoderRecord) -> Encoder:
    """The encoder of a record. Raises UserError when its checkpoint holds another one by now."""
    encoder = Encoder.load(record.checkpoint)
    if encoder.fingerprint != record.encoder:
        raise UserError(
            f"'{record.checkpoint}' now holds encoder {encoder.fingerprint}, but {record.encoder} was "
            "registered; restore the folder, or register the new encoder."
        )
    return encoder


def missing_images(vectors: VectorTable, where: str) -> pa.Array:
    """Identities (strings) of the images, of those that `where` keeps, without a vector of the encoder."""
    store = vectors.store
    try:
        wanted = store.read("images", columns=["image_id"], where=where or None)["image_id"].combine_chunks()
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"where '{where}' is not a valid filter on the images: {error}") from error
    if not store.exists(vectors.name):
        return wanted
    there = store.read(vectors.name, columns=["image_id"])["image_id"].combine_chunks()
    return wanted.filter(pc.invert(pc.is_in(wanted, value_set=there)))


def copy_from_parent(vectors: VectorTable, record: EncoderRecord, encoder: Encoder, where: str) -> int:
    """Take over the parent's vectors when both encoders see every image alike; returns how many."""
    store = vectors.store
    missing = missing_images(vectors, where)
    if not len(missing) or not record.parent or not store.exists(embeddings_table(record.parent)):
        return 0
    if not _same_image_side(store, record.parent, encoder):
        return 0
    batches = store.open(embeddings_table(record.parent)).to_lance().to_batches(batch_size=COPY_ROWS)
    tables = (pa.Table.from_batches([batch]) for batch in batches)
    return sum(vectors.merge(rows.filter(pc.is_in(rows["image_id"], value_set=missing))) for rows in tables)


def _same_image_side(store: Store, parent: str, encoder: Encoder) -> bool:
    try:
        checkpoint = store.encoder(parent).checkpoint
        return Encoder.load(checkpoint).image_fingerprint == encoder.image_fingerprint
    except UserError:
        return False  # the parent's folder is gone: embedding again gives the same vectors


def embed_missing(
    vectors: VectorTable, profile: Profile, record: EncoderRecord, encoder: Encoder, where: str
) -> dict[str, int]:
    """Embed, with a pool of actors, the images of `where` that have no vector; merges them as they come."""
    counts = {"num_embedded": 0, "num_from_preview": 0}
    missing = missing_images(vectors, where)
    if not len(missing):
        return counts
    model = profile.encoder.model_copy(update={"model": record.checkpoint})
    session.connect(profile)
    session.require({"decode": model.decode, "encode": model.stage})
    with streaming_context():
        prepare = partial(prepare_stored, fit=encoder.fit, missing=missing)
        dataset = embed(stored_pixels(vectors.store, model, prepare), model)
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            counts["num_embedded"] += vectors.merge(batch)
            counts["num_from_preview"] += pc.sum(batch["from_preview"]).as_py() or 0
            print(f"index: {counts['num_embedded']} of {len(missing)} embedded", file=sys.stderr)
    return counts


def stored_pixels(store: Store, model: EncoderModel, prepare: partial):
    """A Ray dataset over `images`, with `pixels`."""
    rows = lance_ray.read_lance(
        store.open("images").to_lance().uri,
        columns=list(COLUMNS),
        concurrency=model.decode.max_actors,
        ray_remote_args={"num_cpus": model.decode.num_cpus},
    )
    return rows.map_batches(
        prepare,
        batch_size=model.decode.batch_size,
        batch_format="pyarrow",
        num_cpus=model.decode.num_cpus,
        concurrency=model.decode.max_actors,
    )
