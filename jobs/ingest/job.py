"""Source -> CPU stage -> encoder actors -> tables, as one streaming Ray Data pipeline; then the others."""

import sys
import time
from collections.abc import Iterator

import pyarrow as pa
import ray.data
from pyarrow import compute as pc

from actors.embedding import embed, streaming_context
from actors.encoder import Encoder
from cluster import command, session
from cluster.profile import EncoderModel, Profile
from cluster.tables import EncoderRecord, Store, embeddings_table
from jobs.ingest import stages
from jobs.ingest.config import IngestConfig
from jobs.ingest.lookup import Lookup
from jobs.ingest.others import bring_up_to_date
from jobs.ingest.sources import Source, open_source
from jobs.ingest.writer import Progress, Writer


def run(config: IngestConfig) -> dict:
    """The whole job; see the package. Raises UserError before any work when something is wrong."""
    started = time.monotonic()
    profile, store = command.settings(config)
    source = open_source(config, profile.encoder.decode)
    encoder = Encoder.load(profile.encoder.model)
    session.connect(profile)
    session.require({"decode": profile.encoder.decode, "encode": profile.encoder.stage})
    register_first(store, profile, encoder)
    known = known_images(store, encoder.fingerprint)
    writer = Writer(store, encoder, source.label, config.flush_seconds)
    writer.reject_inputs(source.rejects)
    progress = Progress(source.num_inputs, sys.stderr)
    begun = time.monotonic()
    recipe = stages.Recipe(encoder.fit, config.preview_px, config.max_pixels)
    seen = []
    for batch in embedded(source, profile.encoder, recipe, known):
        writer.add(batch)
        seen.append(ids_of(batch))
        progress.show(writer.counts)
    writer.close()
    ended = time.monotonic()
    others = bring_up_to_date(store, profile, encoder.fingerprint, seen)
    return {
        "source": config.source,
        "kind": source.kind,
        "label": source.label,
        "encoder": encoder.fingerprint,
        **writer.counts,
        "other_encoders": others,
        "images_per_s": round(writer.counts["num_inputs"] / (ended - begun), 1),
        "seconds": {
            "start": round(begun - started, 2),
            "others": round(time.monotonic() - ended, 2),
            "total": round(time.monotonic() - started, 2),
        },
    }


def embedded(source: Source, model: EncoderModel, recipe: stages.Recipe, known: Lookup) -> Iterator[pa.Table]:
    """Batches of `prepared_schema` with `vector` in the place of `pixels`, as the actors finish them."""
    with streaming_context():
        prepared = source.dataset().map_batches(
            stages.prepare,
            batch_format="pyarrow",
            fn_kwargs={"rows": source.rows, "recipe": recipe, "known": known},
            compute=ray.data.TaskPoolStrategy(model.decode.max_actors),
            num_cpus=model.decode.num_cpus,
        )
        yield from embed(prepared, model).iter_batches(batch_size=None, batch_format="pyarrow")


def ids_of(batch: pa.Table) -> pa.Array:
    """Identities of the images in a batch, copied: a column of it would hold the whole batch in memory."""
    return pa.array(batch["image_id"].drop_null().to_pylist(), pa.string())


def known_images(store: Store, fingerprint: str) -> Lookup:
    """Identities of the images that stand in `images` and in the encoder's table."""
    names = ("images", embeddings_table(fingerprint))
    if not all(store.exists(name) for name in names):
        return Lookup(pa.array([], pa.string()))
    images, embeddings = (store.read(name, columns=["image_id"])["image_id"] for name in names)
    return Lookup(images.filter(pc.is_in(images, value_set=embeddings.combine_chunks())))


def register_first(store: Store, profile: Profile, encoder: Encoder) -> None:
    """Register the profile's encoder; in a new store it becomes both `baseline` and `live`."""
    store.register_encoder(
        EncoderRecord(encoder=encoder.fingerprint, checkpoint=profile.encoder.model, dim=encoder.dim)
    )
    taken = store.aliases()
    for alias in ("baseline", "live"):
        if alias not in taken:
            store.set_alias(alias, encoder.fingerprint)
