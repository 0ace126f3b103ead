"""Opening what an alias names: the encoder, its index, and the check that they belong together."""

import os
import random
from collections.abc import Sequence

from actors.encoder import Encoder
from actors.retriever import Retriever
from cluster.errors import UserError
from cluster.profile import EncoderModel, Profile, repo_path
from cluster.tables import EncoderRecord, Store, embeddings_table
from serve_app.batching import Batcher
from serve_app.service import COLUMNS, Service, System

NUM_EXAMPLES = 6


def open_service(
    profile: Profile, store: Store, aliases: Sequence[str], examples: Sequence[str] = ()
) -> Service:
    """Load what the aliases name; two that name one encoder share it. No `examples`: drawn from captions.

    Raises:
        UserError: an alias, table or checkpoint is missing, or a checkpoint is not what was registered.
    """
    if "://" not in store.uri and not os.path.isdir(store.uri):  # LanceDB would make the folder
        raise UserError(f"There is no store {store.uri}: run `kallos ingest` first, or give another --store.")
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
    encoder = _load(record, profile.encoder)
    retriever = Retriever(store, fingerprint, encoder)
    vector = encoder.encode_texts(["warm-up"])  # the first call of everything is slow: not for a user
    retriever.search(vector, 1, columns=COLUMNS)
    batcher = Batcher(
        encoder.encode_texts, max_batch_size=profile.serve.max_batch_size, wait_s=profile.serve.batch_wait_s
    )
    num_rows = store.count(embeddings_table(fingerprint))
    return System(record, batcher, retriever, num_rows, _recall(store, retriever))


def _recall(store: Store, retriever: Retriever) -> float | None:
    """recall@10 of the index as `kallos index` measured it last, None when it did not."""
    if not retriever.approximate:
        return 1.0
    if not store.exists("indexes"):
        return None
    rows = store.read("indexes", where=f"encoder = '{retriever.fingerprint}'").sort_by("measured_at")
    return rows["recall_at_10"][-1].as_py() if rows.num_rows else None


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
