"""The search itself, free of HTTP and of Ray: encoders, indexes and previews behind three calls."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter

import numpy as np
from actors.retriever import Retriever

from actors.encoder import Encoder
from cluster.errors import UserError
from cluster.profile import EncoderModel, Profile, repo_path
from cluster.tables import EncoderRecord, Store, embeddings_table
from serve_app.batching import Batcher

COLUMNS = ("caption", "width_px", "height_px")
NUM_EXAMPLES = 6
NUM_PREVIEWS_KEPT = 2048  # about 10 kB each


@dataclass(frozen=True)
class System:
    """One encoder and the index of its own vectors: they change together or not at all."""

    record: EncoderRecord
    encode: Batcher
    retriever: Retriever
    num_rows: int


@dataclass(frozen=True)
class Found:
    """What a search gives: rows with image_id, score and `COLUMNS`, best first, and milliseconds per step."""

    encoder: str
    rows: list[dict]
    timings_ms: dict[str, float]


class Service:
    """Answers searches from one or more systems over one store."""

    def __init__(self, store: Store, systems: Mapping[str, System], examples: Sequence[str]) -> None:
        """`systems`: by alias, the default first. `examples`: queries to offer."""
        self.systems = dict(systems)
        self._images = store.open("images")
        self.examples = list(examples)
        self.preview = lru_cache(NUM_PREVIEWS_KEPT)(self._preview)

    async def search(self, system: str, query: str, k: int) -> Found:
        """The `k` images of that system nearest to the query."""
        chosen = self.systems[system]
        started = perf_counter()
        vector = await chosen.encode(query)
        encoded = perf_counter()
        (rows,) = await asyncio.to_thread(chosen.retriever.search, vector[np.newaxis], k, columns=COLUMNS)
        done = perf_counter()
        seconds = {"encode": encoded - started, "search": done - encoded, "total": done - started}
        return Found(chosen.record.encoder, rows, {step: 1000 * value for step, value in seconds.items()})

    def _preview(self, image_id: str) -> bytes:
        """The JPEG preview of an image.

        Raises:
            KeyError: the store has no image of that id. (Not cached: it may be ingested later.)
        """
        for _ in range(2):
            rows = (
                self._images.search().where(f"image_id = '{image_id}'").select(["preview"]).limit(1).to_list()
            )
            if rows:
                return rows[0]["preview"]
            self._images.checkout_latest()  # ingested since the table was opened?
        raise KeyError(image_id)


def open_service(
    profile: Profile, store: Store, aliases: Sequence[str], examples: Sequence[str] = ()
) -> Service:
    """Load what the aliases name; two that name one encoder share it. No `examples`: drawn from captions.

    Raises:
        UserError: an alias, table or checkpoint is missing, or a checkpoint is not what was registered.
    """
    named = {alias: _resolve(store, alias) for alias in aliases}
    opened = {encoder: _open_system(profile, store, encoder) for encoder in set(named.values())}
    systems = {alias: opened[encoder] for alias, encoder in named.items()}
    return Service(store, systems, examples or _examples(store, named[aliases[0]]))


def _resolve(store: Store, alias: str) -> str:
    """The fingerprint behind an alias. Until something is promoted, `live` is the baseline."""
    aliases = store.aliases()
    if alias == "live" and "live" not in aliases:
        alias = "baseline"
    return aliases[alias] if alias in aliases else store.encoder(alias).encoder


def _open_system(profile: Profile, store: Store, fingerprint: str) -> System:
    record = store.encoder(fingerprint)
    table = embeddings_table(fingerprint)
    if not store.exists(table):
        raise UserError(
            f"The index of encoder {fingerprint} is missing: the store {store.uri} has no table {table!r}; "
            f"run `kallos index --encoder {fingerprint}`."
        )
    encoder = _load(record, profile.encoder)
    retriever = Retriever(store, fingerprint, encoder)
    vector = encoder.encode_texts(["warm-up"])  # the first call of everything is slow: not for a user
    retriever.search(vector, 1, columns=COLUMNS)
    batcher = Batcher(
        encoder.encode_texts, max_batch_size=profile.serve.max_batch_size, wait_s=profile.serve.batch_wait_s
    )
    return System(record, batcher, retriever, store.count(table))


def _load(record: EncoderRecord, config: EncoderModel) -> Encoder:
    """The registered encoder, refused when its checkpoint is not the one that made the index."""
    device = "cuda" if config.stage.num_gpus else "cpu"
    encoder = Encoder.load(
        repo_path(record.checkpoint),
        precision=config.precision,
        device=device,
        num_threads=config.num_threads,
    )
    if encoder.fingerprint != record.encoder:
        raise UserError(
            f"The checkpoint {record.checkpoint!r} holds encoder {encoder.fingerprint}, its index was made "
            f"by {record.encoder}: put the old checkpoint back, or run `kallos index --encoder "
            f"{encoder.fingerprint}` and let the alias name it."
        )
    return encoder


def _examples(store: Store, fingerprint: str) -> list[str]:
    """A few short captions of the indexed images, the same ones at every start."""
    table = store.open(embeddings_table(fingerprint))
    rows = table.search().select(["caption"]).limit(2000).to_arrow()["caption"].to_pylist()
    short = {text.strip().lower(): text.strip() for text in rows if 2 <= len(text.split()) <= 6}
    return random.Random(0).sample(sorted(short.values()), min(NUM_EXAMPLES, len(short)))
