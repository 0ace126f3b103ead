"""The other encoders that answer searches: what was ingested must be found by them too, and at once."""

import sys

import pyarrow as pa
from pyarrow import compute as pc

from actors.encoder import load_registered
from actors.missing_vectors import add_vectors, missing_images
from actors.vectors import VectorTable
from cluster.errors import UserError
from cluster.profile import Profile
from cluster.tables import Store, embeddings_table


def other_encoders(store: Store, fingerprint: str) -> dict[str, list[str]]:
    """The aliases of each encoder that one names and that has an index, without the encoder given.

    A candidate that was never indexed is left alone: `kallos index` decides that it shall answer.
    """
    named: dict[str, list[str]] = {}
    for alias, encoder in sorted(store.aliases().items()):
        if encoder != fingerprint and store.exists(embeddings_table(encoder)):
            named.setdefault(encoder, []).append(alias)
    return named


def bring_up_to_date(store: Store, profile: Profile, fingerprint: str, seen: list[pa.Array]) -> dict:
    """Give the images of this run a vector of each other encoder; returns a report for each of them.

    Args:
        store: with `images` and the table of the encoder that the run embedded with.
        profile: how the actors run.
        fingerprint: that encoder's.
        seen: ids of the run's images, those that were known already too: a run before may have been killed.

    An encoder whose checkpoint is gone is told in its report, and does not end the job: the images are in.
    """
    if not seen or not store.exists("images"):
        return {}
    ids = pa.concat_arrays(seen)
    reports = {}
    for encoder, aliases in other_encoders(store, fingerprint).items():
        try:
            added = _add(store, profile, encoder, ids)
        except UserError as error:
            added = {"problem": str(error)}
            print(f"ingest: {' and '.join(aliases)} will not find the new images: {error}", file=sys.stderr)
        reports[encoder] = {"aliases": aliases, **added}
    return reports


def _add(store: Store, profile: Profile, fingerprint: str, ids: pa.Array) -> dict[str, int]:
    missing = missing_images(store, fingerprint)
    missing = missing.filter(pc.is_in(missing["image_id"], value_set=ids))
    if not len(missing):
        return dict.fromkeys(("num_copied", "num_embedded", "num_from_preview"), 0)
    record = store.encoder(fingerprint)
    encoder = load_registered(record)
    return add_vectors(VectorTable(store, encoder), profile, record, encoder, missing)
