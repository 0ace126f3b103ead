"""The checks before an encoder goes live, and the way back."""

from typing import Any

from pyarrow import compute as pc

from actors.encoder import load_registered
from cluster import command
from cluster.errors import UserError
from cluster.profile import Guard
from cluster.tables import EncoderRecord, Store, embeddings_table
from jobs.promote.config import PromoteConfig

LIVE = "live"


def run(config: PromoteConfig) -> dict[str, Any]:
    """The whole job; see the package."""
    profile, store = command.settings(config)
    named = history(store)
    before = named[-1] if named else ""
    record = store.encoder(previous(store, named) if config.rollback else config.encoder)
    num_rows = check_table(store, record.encoder)
    drops = recall_drops(store, record)
    if not config.rollback and record.encoder != store.aliases().get("baseline"):
        check_recall(record, drops, profile.guard)
    load_registered(record)  # as a server will: it is refused here, not there
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
    """Fingerprints that `live` has named, the present one last; at first it is the baseline."""
    if not store.exists("aliases"):
        return []
    first = store.aliases().get("baseline")
    rows = store.read("aliases", ["version", "encoder"], f"alias = '{LIVE}'").sort_by("version")
    return [*([first] if first else []), *rows["encoder"].to_pylist()]


def previous(store: Store, named: list[str]) -> str:
    """The fingerprint that `live` named before the present one. Raises UserError when there is none."""
    others = [encoder for encoder in named if encoder != named[-1]]
    if not others:
        raise UserError(f"{store} has nothing to roll back to: `live` has never named another encoder.")
    return others[-1]


def check_table(store: Store, encoder: str) -> int:
    """How many rows the encoder's table has. Raises UserError when an image is not among them."""
    table, way_out = embeddings_table(encoder), f"run `kallos index --encoder {encoder}` first."
    if not store.exists(table):
        raise UserError(f"Encoder {encoder} has no index in {store.uri}: {way_out}")
    images = store.read("images", ["image_id"])["image_id"]
    indexed = store.read(table, ["image_id"])["image_id"]
    num_missing = pc.invert(pc.is_in(images, value_set=indexed.combine_chunks())).to_pylist().count(True)
    if num_missing:
        raise UserError(
            f"The index of encoder {encoder} lacks {num_missing} of the {len(images)} images of {store.uri}: "
            f"{way_out}"
        )
    return len(indexed)


def recall_drops(store: Store, record: EncoderRecord) -> list[float | None]:
    """What each alignment on the way to the encoder cost of recall@10, the first one first; [] for a root.

    As `kallos align` recorded it. None for an alignment that nobody measured, and for what came before an
    encoder whose parent is not registered, or is its own descendant.
    """
    drops, seen = [], set()
    while record.parent:
        seen.add(record.encoder)
        recall = record.metrics.get("align", {}).get("recall@10", {})
        before, after = recall.get("before"), recall.get("after")
        drops.append(None if before is None or after is None else before - after)
        try:
            record = store.encoder(record.parent)
        except UserError:
            return [None, *reversed(drops)]
        if record.encoder in seen:
            return [None, *reversed(drops)]
    return drops[::-1]


def recall_drop(drops: list[float | None]) -> float | None:
    """The sum of the alignments' costs; None for a root, or where one of them is unknown."""
    return round(sum(drops), 9) if drops and None not in drops else None


def check_recall(record: EncoderRecord, drops: list[float | None], guard: Guard) -> None:
    """Raises UserError for an aligned encoder that lost too much, or of which nobody knows what it lost.

    All alignments since the first encoder count: each alone may cost little. Where the profile measures
    nothing (guard.num_captions 0), nothing needs to be known.
    """
    drop = recall_drop(drops)
    if None in drops and guard.num_captions:
        raise UserError(
            f"Nobody measured what alignment cost encoder {record.encoder} of recall@10{_parts(drops)}: "
            "align again on images with captions, or set guard.num_captions to 0 in the profile to promote "
            "without."
        )
    if drop is not None and drop > guard.max_recall_drop:
        raise UserError(
            f"Alignment cost encoder {record.encoder} {drop:.3f} of recall@10{_parts(drops)}, where "
            f"guard.max_recall_drop allows {guard.max_recall_drop:g}: align more gently, or raise the limit "
            "in the profile."
        )


def _parts(drops: list[float | None]) -> str:
    """In words, what a sum is made of; nothing for one alignment."""
    told = ", ".join("unknown" if drop is None else f"{drop:.3f}" for drop in drops)
    return f" in {len(drops)} alignments together ({told})" if len(drops) > 1 else ""
