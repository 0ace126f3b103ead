"""Embeds the images of an ingest run for every other encoder in use, so that its searches find them."""

import pyarrow as pa
from pyarrow import compute as pc

from actors.encoder import load_registered
from actors.missing_vectors import COUNTS, add_vectors, missing_images
from actors.vectors import VectorTable
from cluster import terminal
from cluster.errors import UserError
from cluster.profile import Profile
from cluster.tables import Store, embeddings_table


def other_encoders(store: Store, fingerprint: str) -> dict[str, list[str]]:
    """Encoders other than `fingerprint` that have an alias and an index -> their aliases.

    A candidate without an index is skipped until `kallos index` makes one.
    """
    aliases_of: dict[str, list[str]] = {}
    for alias, encoder in sorted(store.aliases().items()):
        if encoder != fingerprint and store.exists(embeddings_table(encoder)):
            aliases_of.setdefault(encoder, []).append(alias)
    return aliases_of


def embed_for_other_encoders(
    store: Store, profile: Profile, fingerprint: str, ids_of_run: list[pa.Array]
) -> dict:
    """Add the missing vectors of this run's images for each other encoder; returns a report per encoder.

    `fingerprint` is the encoder that the run used. `ids_of_run` includes images that were already known:
    an earlier run may have been killed before it reached this step.

    An encoder whose checkpoint is gone is reported as a problem and does not fail the job: the images
    themselves are stored.
    """
    if not ids_of_run or not store.exists("images"):
        return {}
    ids = pa.concat_arrays(ids_of_run)
    reports = {}
    for encoder, aliases in other_encoders(store, fingerprint).items():
        try:
            counts = _embed_missing(store, profile, encoder, ids)
        except UserError as error:
            counts = {"problem": str(error)}
            terminal.say(f"ingest: {' and '.join(aliases)} will not find the new images: {error}")
        reports[encoder] = {"aliases": aliases, **counts}
    return reports


def _embed_missing(store: Store, profile: Profile, fingerprint: str, ids: pa.Array) -> dict[str, int]:
    missing = missing_images(store, fingerprint)
    missing = missing.filter(pc.is_in(missing["image_id"], value_set=ids))
    if not len(missing):
        return dict.fromkeys(COUNTS, 0)
    record = store.encoder(fingerprint)
    encoder = load_registered(record)
    return add_vectors(VectorTable(store, encoder), profile, record, encoder, missing)
