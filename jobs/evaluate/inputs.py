"""What is asked of the systems: queries, captions with their images, and tables of people's votes."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.errors import UserError
from cluster.table_files import query_texts
from cluster.tables import Store
from jobs.evaluate import hpir
from jobs.evaluate.config import EvaluateConfig


@dataclass(frozen=True)
class Captions:
    """Distinct captions of the gallery; a caption's own images are all that carry it.

    owners: image_id -> index into `texts`, or -1 for a caption outside the sample; covers the whole gallery.
    column: "detailed_caption", or "caption" where the gallery has no detailed ones.
    num_images, num_sharing: images with such a caption, and those of them that share theirs with another.
    num_learned: captions that are not asked because alignment learned from an image with them; None where
    nobody knows what it learned from.
    """

    texts: tuple[str, ...]
    owners: dict[str, int]
    column: str
    num_images: int
    num_sharing: int
    num_learned: int | None = 0


@dataclass(frozen=True)
class VoteTable:
    """People's votes in image_ids, named by path.

    Rows with an image that the store lacks are only counted (`num_left_out`), and so are those on a query
    that was labelled or chosen for (`num_learned`): alignment may have learned from it.
    """

    name: str
    rows: tuple[hpir.Row, ...]
    num_left_out: int
    num_learned: int


def draw(items: Sequence, num: int, seed: int) -> list:
    """`num` items drawn without replacement, in their original order; all if num is 0 or too large."""
    if num == 0 or num >= len(items):
        return list(items)
    chosen = np.random.default_rng(seed).choice(len(items), size=num, replace=False)
    return [items[i] for i in sorted(chosen)]


def load_queries(
    config: EvaluateConfig, store: Store, learned: Set[str] = frozenset()
) -> tuple[list[str], int]:
    """Distinct queries, drawn by seed from those that are not `learned`; and how many are.

    Raises UserError when there are none.
    """
    path = config.queries or (f"{config.truth}/queries_heldout.parquet" if config.truth else "")
    queries = query_texts(path) if path else _from_captions(store, config.where)
    distinct = list(dict.fromkeys(query.strip() for query in queries if query and query.strip()))
    source = f"in {path!r}" if path else f"among the captions of the store {store.uri}"
    if not distinct:
        raise UserError(f"no queries {source}: give --queries a file with a `query` column")
    unseen = [query for query in distinct if " ".join(query.split()) not in learned]
    if not unseen:
        raise UserError(
            f"all {len(distinct)} queries {source} were labelled or chosen for, so alignment may know them: "
            "give --queries a file of others"
        )
    return draw(unseen, config.num_queries, config.seed), len(distinct) - len(unseen)


def _from_captions(store: Store, where: str) -> list[str]:
    return sorted(set(store.read("images", ["caption"], where or None)["caption"].to_pylist()) - {""})


def load_captions(
    config: EvaluateConfig, store: Store, gallery: Set[str], learned: Set[str] | None = frozenset()
) -> Captions:
    """The captions whose recall is measured.

    gallery: the image_ids that all encoders have embedded. learned: those whose captions alignment learned
    from, None where nobody knows.
    """
    table = store.read("images", ["image_id", "caption", "detailed_caption"], config.where or None)
    rows = [row for row in table.to_pylist() if row["image_id"] in gallery]
    column = "detailed_caption" if any(row["detailed_caption"] for row in rows) else "caption"
    captions = {row["image_id"]: row[column] for row in rows if row[column]}
    return sample_captions(captions, column, config.num_caption_queries, config.seed, learned)


def sample_captions(
    captions: Mapping[str, str], column: str, num: int, seed: int, learned: Set[str] | None = frozenset()
) -> Captions:
    """A seeded sample of the distinct captions of `captions` (image_id -> caption) that no `learned` image
    has.
    """
    times = Counter(captions.values())
    known = {captions[image_id] for image_id in (learned or ()) if image_id in captions}
    # Shuffled, so that the first few are a fair sample too: the teacher answers only those.
    chosen = np.random.default_rng(seed).permutation(sorted(times.keys() - known))[: num or None].tolist()
    place = {text: i for i, text in enumerate(chosen)}
    owners = {image_id: place.get(text, -1) for image_id, text in captions.items()}
    num_sharing = sum(count for count in times.values() if count > 1)
    num_learned = None if learned is None else len(known)
    return Captions(tuple(chosen), owners, column, len(captions), num_sharing, num_learned)


def load_votes(
    config: EvaluateConfig, store: Store, known: Set[str], learned: Set[str] = frozenset()
) -> tuple[list[VoteTable], list[VoteTable]]:
    """(HPIR-form tables, pair tables) as configured.

    known: image_ids that all encoders have embedded. learned: queries whose rows are left out.

    Raises UserError for an unreadable table, or one none of whose rows can be asked.
    """
    if not config.hpir and not config.pairs:
        return [], []
    table = store.read("images", ["image_id", "uri"])
    uris = dict(zip(table["image_id"].to_pylist(), table["uri"].to_pylist(), strict=True))
    uris = {image_id: uri for image_id, uri in uris.items() if image_id in known}
    readers = [(path, hpir.read_hpir) for path in config.hpir] + [(p, hpir.read_pairs) for p in config.pairs]
    tables = [_vote_table(path, reader(path), uris, learned, config) for path, reader in readers]
    return tables[: len(config.hpir)], tables[len(config.hpir) :]


def _vote_table(
    path: str, rows: list[hpir.Row], uris: dict[str, str], learned: Set[str], config: EvaluateConfig
) -> VoteTable:
    names = (name for row in rows for name in (*row.group_a, *row.group_b))
    kept = hpir.with_image_ids(rows, hpir.match_images(names, uris, Path(path).parent))
    if not kept:
        raise UserError(
            f"no row of {path!r} names images that every compared encoder has embedded: "
            f"`kallos ingest` them, then `kallos index --encoder {config.aligned}`"
        )
    unseen = [row for row in kept if row.query not in learned]
    if not unseen:
        raise UserError(
            f"every row of {path!r} is on a query that was labelled or chosen for: ask people about others"
        )
    drawn = draw(unseen, config.num_votes, config.seed)
    return VoteTable(path, tuple(drawn), len(rows) - len(kept), len(kept) - len(unseen))
