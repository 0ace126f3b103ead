"""Checks an encoder before it goes live, and rolls back."""

from typing import Any

from actors.encoder import load_registered
from actors.missing_vectors import first_readable, without_vector
from cluster import command, terminal
from cluster.errors import UserError
from cluster.profile import Guard
from cluster.tables import EncoderRecord, Store, embeddings_table
from jobs.promote.config import PromoteConfig

LIVE = "live"


def run(config: PromoteConfig) -> dict[str, Any]:
    """Run the job and return its report."""
    profile, store = command.settings(config)
    past = history(store)
    before = past[-1] if past else ""
    record = store.encoder(previous(store, past) if config.rollback else config.encoder)
    num_rows = check_table(store, record.encoder)
    drops = recall_drops(store, record)
    if not config.rollback and record.encoder != store.aliases().get("baseline"):
        check_recall(record, drops, profile.guard)
    load_registered(record)  # a broken checkpoint fails here, not in a server
    if not config.dry_run:
        store.set_alias(LIVE, record.encoder)
    return {
        "live": record.encoder,
        "before": before,
        "changed": record.encoder != before,
        "dry_run": config.dry_run,
        "num_rows": num_rows,
        "recall_drop": recall_drop(drops),
    }


def history(store: Store) -> list[str]:
    """Fingerprints that `live` has had, oldest first; before the first promotion, the baseline."""
    if not store.exists("aliases"):
        return []
    first = store.aliases().get("baseline")
    rows = store.read("aliases", ["version", "encoder"], f"alias = '{LIVE}'").sort_by("version")
    return [*([first] if first else []), *map(str, rows["encoder"].to_pylist())]


def previous(store: Store, past: list[str]) -> str:
    """The last fingerprint that `live` had before its current one. Raises UserError when there is none."""
    others = [encoder for encoder in past if encoder != past[-1]]
    if not others:
        raise UserError(
            f"{store} has nothing to roll back to: `live` has always named the same encoder. "
            "Name the encoder to promote instead."
        )
    return others[-1]


def check_table(store: Store, encoder: str) -> int:
    """Number of rows in the encoder's table. Raises UserError when it lacks an image that can be read."""
    table, way_out = embeddings_table(encoder), f"run `kallos index --encoder {encoder}` first."
    if not store.exists(table):
        raise UserError(f"Encoder {encoder} has no index in {store.uri}: {way_out}")
    images = store.read("images", ["image_id"])
    missing = list(map(str, without_vector(store, encoder, images)["image_id"].to_pylist()))
    lacks = f"The index of encoder {encoder} lacks {len(missing)} of the {len(images)} images of {store.uri}"
    if first_readable(store, missing):
        raise UserError(f"{lacks}: {way_out}")
    if missing:
        terminal.say(f"{lacks}, which cannot be read; `kallos delete --image-ids` removes them")
    return store.count(table)


def recall_drops(store: Store, record: EncoderRecord) -> list[float | None]:
    """The guard's drop of recall in each alignment that led to the encoder, oldest first; [] for a root.

    `kallos align` recorded the larger of the drops of recall@1 and recall@10. A drop is None when it was not
    measured. A leading None stands for unknown ancestors: the parent is not registered, or the chain of
    parents is circular.
    """
    drops, seen = [], set()
    while record.parent:
        seen.add(record.encoder)
        drops.append(record.metrics.get("align", {}).get("recall_drop"))
        try:
            record = store.encoder(record.parent)
        except UserError:
            return [None, *reversed(drops)]
        if record.encoder in seen:
            return [None, *reversed(drops)]
    return drops[::-1]


def recall_drop(drops: list[float | None]) -> float | None:
    """The sum of the drops; None for a root, or if one of them is unknown."""
    known = [drop for drop in drops if drop is not None]
    return round(sum(known), 9) if known and len(known) == len(drops) else None


def check_recall(record: EncoderRecord, drops: list[float | None], guard: Guard) -> None:
    """Raise UserError for an aligned encoder whose drop of recall is too large or unknown.

    All alignments since the first encoder count, because small drops add up. An unknown drop is accepted if
    the profile measures none (guard.num_captions 0).
    """
    drop = recall_drop(drops)
    if None in drops and guard.num_captions:
        raise UserError(
            f"The drop of recall of encoder {record.encoder} was not measured{_parts(drops)}: align "
            "again on images with captions, or set guard.num_captions to 0 in the profile."
        )
    if drop is not None and drop > guard.max_recall_drop:
        raise UserError(
            f"Encoder {record.encoder} lost {drop:.3f} of recall{_parts(drops)}, and "
            f"guard.max_recall_drop allows {guard.max_recall_drop:g}: align with a smaller learning rate or "
            "fewer epochs, or raise the limit in the profile."
        )


def _parts(drops: list[float | None]) -> str:
    """The drops of the single alignments, for a message; empty if there is just one."""
    parts = ", ".join("unknown" if drop is None else f"{drop:.3f}" for drop in drops)
    return f" in {len(drops)} alignments together ({parts})" if len(drops) > 1 else ""
