"""The ingest pipeline: source -> CPU stage -> encoder actors -> tables, then the other encoders."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import pyarrow as pa
import ray.data
from pyarrow import compute as pc

from actors.encoder import Encoder
from actors.stages import embed, streaming_context
from cluster import command, session, terminal
from cluster.profile import EncoderModel, Profile
from cluster.tables import EncoderRecord, Store, embeddings_table
from jobs.ingest.config import IngestConfig
from jobs.ingest.lookup import Lookup
from jobs.ingest.other_encoders import embed_for_other_encoders
from jobs.ingest.prepare import DecodeSettings, prepare
from jobs.ingest.sources.opening import open_source
from jobs.ingest.sources.source import Source
from jobs.ingest.writer import Writer

MAX_ENDINGS = 20


def run(config: IngestConfig) -> dict:
    """Run the job and return its report. Raises UserError for a bad source before any work starts."""
    started = time.monotonic()
    profile, store = command.settings(config)
    source = open_source(config, profile.encoder.decode)
    encoder = Encoder.load(profile.encoder.model)
    session.connect(profile)
    session.require({"decode": profile.encoder.decode, "encode": profile.encoder.stage})
    register_encoder(store, profile, encoder)
    known = known_images(store, encoder.fingerprint)
    writer = Writer(store, encoder, source.label, config.flush_seconds)
    writer.reject_inputs(source.rejects)
    pipeline_started = time.monotonic()
    settings = DecodeSettings(encoder.fit, config.preview_px, config.max_pixels)
    batches = embedded_batches(source, profile.encoder, settings, known)
    ids_of_run = write(batches, writer, source.num_inputs)
    writer.require_images()
    pipeline_ended = time.monotonic()
    others = embed_for_other_encoders(store, profile, encoder.fingerprint, ids_of_run)
    return {
        "source": config.source,
        "kind": source.kind,
        "label": source.label,
        "encoder": encoder.fingerprint,
        **writer.counts,
        **_files(source, writer.ignored),
        **source.report,
        "other_encoders": others,
        "images_per_s": round(writer.counts["num_inputs"] / (pipeline_ended - pipeline_started), 1),
        "seconds": {
            "start": round(pipeline_started - started, 2),
            "others": round(time.monotonic() - pipeline_ended, 2),
            "total": round(time.monotonic() - started, 2),
        },
    }


def _files(source: Source, not_images: Counter[str]) -> dict:
    """What became of the source's files, for the report; ignored ones by ending or by what hides them."""
    ignored = source.ignored + not_images
    shown = dict(ignored.most_common(MAX_ENDINGS))
    if others := ignored.total() - sum(shown.values()):
        shown["others"] = others
    return {
        "num_files": source.num_files,
        "num_word_files": source.num_word_files,
        "num_ignored": ignored.total(),
        "ignored": shown,
    }


def embedded_batches(
    source: Source, model: EncoderModel, settings: DecodeSettings, known: Lookup
) -> Iterator[pa.Table]:
    """Batches of `prepared_schema` with `vector` in place of `pixels`, as the actors finish them."""
    with streaming_context():
        prepared = source.dataset().map_batches(
            cast(Any, prepare),  # Ray's types allow no arguments besides the batch
            batch_format="pyarrow",
            fn_kwargs={"rows": source.rows, "settings": settings, "known": known},
            compute=ray.data.TaskPoolStrategy(model.decode.max_actors),
            num_cpus=model.decode.num_cpus,
        )
        batches = embed(prepared, model).iter_batches(batch_size=None, batch_format="pyarrow")
        yield from cast(Iterator[pa.Table], batches)


def write(batches: Iterator[pa.Table], writer: Writer, num_inputs: int | None) -> list[pa.Array]:
    """Write the batches as they arrive and show progress; returns the ids of their images."""
    ids_of_run = []
    with terminal.progress("ingest", "images", num_inputs) as update:
        for batch in batches:
            writer.add(batch)
            # Copied: a slice of the column would keep the whole batch in memory.
            ids_of_run.append(pa.array(batch["image_id"].drop_null().to_pylist(), pa.string()))
            update(**writer.progress)
        writer.flush()
        update(**writer.progress)
    return ids_of_run


def known_images(store: Store, fingerprint: str) -> Lookup:
    """Ids of the images that are both in `images` and in the encoder's table."""
    names = ("images", embeddings_table(fingerprint))
    if not all(store.exists(name) for name in names):
        return Lookup(pa.array([], pa.string()))
    images, embeddings = (store.read(name, columns=["image_id"])["image_id"] for name in names)
    return Lookup(images.filter(pc.is_in(images, value_set=embeddings.combine_chunks())))


def register_encoder(store: Store, profile: Profile, encoder: Encoder) -> None:
    """Register the profile's encoder; in a new store it becomes both `baseline` and `live`."""
    store.register_encoder(
        EncoderRecord(encoder=encoder.fingerprint, checkpoint=profile.encoder.model, dim=encoder.dim)
    )
    for alias in {"baseline", "live"} - store.aliases().keys():
        store.set_alias(alias, encoder.fingerprint)
