"""The index job: vectors for the images that have none, then the ANN index and its recall."""

import sys
import time
from functools import partial

import lance_ray
import pyarrow as pa
from pyarrow import compute as pc

from actors.embedding import embed, streaming_context
from actors.encoder import Encoder
from cluster import session
from cluster.errors import UserError
from cluster.profile import EncoderModel, Profile
from cluster.tables import EncoderRecord, Store, embeddings_schema, embeddings_table
from jobs import command
from jobs.index import IndexConfig
from jobs.index.ann import build_ann, compact, measure
from jobs.index.stored import COLUMNS, prepare_stored

COPY_ROWS = 10_000


def index(config: IndexConfig) -> dict:
    """The whole job; see the package."""
    started = time.monotonic()
    profile, store = command.settings(config)
    record = store.encoder(config.encoder)
    encoder = load_registered(record)
    num_copied = copy_from_parent(store, record, encoder, config.where)
    missing = missing_images(store, encoder, config.where)
    embedded = embed_missing(store, profile, record, encoder, missing)
    embed_s = time.monotonic() - started
    table = store.open(embeddings_table(encoder.fingerprint))
    compact(table)
    kind = build_ann(table, profile.index.ann_min_rows)
    build_s = time.monotonic() - started - embed_s
    measured = measure(store, encoder, kind, profile.index.num_recall_queries)
    total_s = time.monotonic() - started
    return {
        "encoder": encoder.fingerprint,
        "num_rows": measured["num_rows"],
        "num_copied": num_copied,
        **embedded,
        "index": kind,
        "recall@10": measured["recall_at_10"],
        "seconds": {"embed": round(embed_s, 2), "build": round(build_s, 2), "total": round(total_s, 2)},
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


def missing_images(store: Store, encoder: Encoder, where: str) -> pa.Array:
    """Identities (strings) of the images, of those that `where` keeps, without a vector of the encoder."""
    name = embeddings_table(encoder.fingerprint)
    try:
        wanted = store.read("images", columns=["image_id"], where=where or None)["image_id"].combine_chunks()
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"where '{where}' is not a valid filter on the images: {error}") from error
    if not store.exists(name):
        return wanted
    there = store.read(name, columns=["image_id"])["image_id"].combine_chunks()
    return wanted.filter(pc.invert(pc.is_in(wanted, value_set=there)))


def copy_from_parent(store: Store, record: EncoderRecord, encoder: Encoder, where: str) -> int:
    """Take over the parent's vectors when both encoders see every image alike; returns how many."""
    missing = missing_images(store, encoder, where)
    if not len(missing) or not record.parent or not store.exists(embeddings_table(record.parent)):
        return 0
    if not _same_image_side(store, record.parent, encoder):
        return 0
    batches = store.open(embeddings_table(record.parent)).to_lance().to_batches(batch_size=COPY_ROWS)
    tables = (pa.Table.from_batches([batch]) for batch in batches)
    return sum(
        _merge(store, encoder, rows.filter(pc.is_in(rows["image_id"], value_set=missing))) for rows in tables
    )


def _same_image_side(store: Store, parent: str, encoder: Encoder) -> bool:
    try:
        checkpoint = store.encoder(parent).checkpoint
        return Encoder.load(checkpoint).image_fingerprint == encoder.image_fingerprint
    except UserError:
        return False  # the parent's folder is gone: embedding again gives the same vectors


def embed_missing(
    store: Store, profile: Profile, record: EncoderRecord, encoder: Encoder, missing: pa.Array
) -> dict[str, int]:
    """Embed the missing images with a pool of actors, merging as they come."""
    counts = {"num_embedded": 0, "num_from_preview": 0}
    if not len(missing):
        return counts
    model = profile.encoder.model_copy(update={"model": record.checkpoint})
    session.connect(profile)
    session.require({"decode": model.decode, "encode": model.stage})
    with streaming_context():
        prepare = partial(prepare_stored, fit=encoder.fit, missing=missing)
        dataset = embed(stored_pixels(store, model, prepare), model)
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            counts["num_embedded"] += _merge(store, encoder, batch)
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


def _merge(store: Store, encoder: Encoder, rows: pa.Table) -> int:
    schema = embeddings_schema(encoder.dim)
    if not rows.num_rows:
        return 0
    rows = rows.select(schema.names).cast(schema)
    return store.merge(embeddings_table(encoder.fingerprint), rows, on=["image_id"])
