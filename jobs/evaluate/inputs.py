"""The inputs of an evaluation: queries, captions with their images, people's votes, truth and labels."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from actors.caption_pairs import part_of
from cluster.errors import UserError, shown
from cluster.table_files import query_texts
from cluster.tables import EncoderRecord, Store
from jobs.evaluate import hpir, trained_on
from jobs.evaluate.config import EvaluateConfig
from jobs.evaluate.gallery import common_gallery, embedded_ids
from jobs.evaluate.truth import Truth, load_labels, load_truth


@dataclass(frozen=True)
class Captions:
    """Distinct captions of the gallery; a caption's own images are all that carry it.

    owners: image_id -> index into `texts`, or -1 for a caption outside the sample; covers the whole gallery.
    column: "detailed_caption", or "caption" where the gallery has no detailed ones.
    num_images, num_sharing: images with such a caption, and those among them that share theirs with another.
    num_learned: captions excluded because alignment trained on an image with them, or may have.
    num_test: captions of the sample that belong to images of the part "test", which never train.
    """

    texts: tuple[str, ...]
    owners: dict[str, int]
    column: str
    num_images: int
    num_sharing: int
    num_learned: int = 0
    num_test: int = 0

    def first(self, num: int) -> "Captions":
        """The same gallery with the first captions of the sample alone."""
        owners = {image_id: index if index < num else -1 for image_id, index in self.owners.items()}
        return replace(self, texts=self.texts[:num], owners=owners)


@dataclass(frozen=True)
class VoteTable:
    """One table of people's votes, in image_ids; `name` is its path.

    num_left_out: rows skipped because the store lacks one of their images. num_learned: rows skipped because
    their query was labelled or people chose a result for it, so that alignment may have trained on it.
    """

    name: str
    rows: tuple[hpir.Row, ...]
    num_left_out: int
    num_learned: int

    @property
    def votes(self) -> dict[str, list[hpir.Votes]]:
        """criterion -> the votes on each row, for the criteria that every row has votes on."""
        shared = [c for c in hpir.CRITERIA if all(c in row.votes for row in self.rows)]
        return {criterion: [row.votes[criterion] for row in self.rows] for criterion in shared}


@dataclass(frozen=True)
class EvaluationInputs:
    """What every system is evaluated on.

    gallery: image_ids. labels: image_id -> what it shows, for zero-shot classification; may be empty.
    num_learned: queries excluded because alignment may have trained on them.
    """

    queries: list[str]
    captions: Captions
    hpir_tables: list[VoteTable]
    pair_tables: list[VoteTable]
    truth: Truth | None
    gallery: frozenset[str]
    labels: dict[str, str] = field(default_factory=dict)
    num_learned: int = 0

    @property
    def vote_tables(self) -> list[VoteTable]:
        return [*self.hpir_tables, *self.pair_tables]

    @property
    def voted_pairs(self) -> list[tuple[str, str]]:
        """Distinct (query, image_id) of all vote tables."""
        rows = [row for table in self.vote_tables for row in table.rows]
        return list(dict.fromkeys((row.query, i) for row in rows for i in (*row.group_a, *row.group_b)))


def read_inputs(
    config: EvaluateConfig,
    store: Store,
    records: Sequence[EncoderRecord],
    unindexed: Sequence[EncoderRecord] = (),
) -> EvaluationInputs:
    """Read queries, captions, votes, truth and labels.

    Args:
        records: encoders that have embedded the gallery.
        unindexed: further encoders whose training data are excluded as well.

    Raises UserError for anything missing or malformed.
    """
    gallery = common_gallery(store, records, config.where)
    known_queries = trained_on.queries(store)
    queries, num_learned = load_queries(config, store, known_queries)
    truth = load_truth(config.truth, queries) if config.truth else None
    labels = load_labels(config.labels) if config.labels else {}
    embedded = [embedded_ids(store, record.encoder) for record in records]
    hpir_tables, pair_tables = load_votes(config, store, set.intersection(*embedded), known_queries)
    known_images = trained_on.captioned_images(store, [*records, *unindexed])
    captions = load_captions(config, store, gallery, known_images)
    return EvaluationInputs(
        queries, captions, hpir_tables, pair_tables, truth, frozenset(gallery), labels, num_learned
    )


def draw(items: Sequence, num: int, seed: int) -> list:
    """`num` items drawn without replacement, in their original order; all if num is 0 or too large."""
    if num == 0 or num >= len(items):
        return list(items)
    chosen = np.random.default_rng(seed).choice(len(items), size=num, replace=False)
    return [items[index] for index in sorted(chosen)]


def load_queries(
    config: EvaluateConfig, store: Store, learned: Set[str] = frozenset()
) -> tuple[list[str], int]:
    """Distinct queries outside `learned`, drawn by seed; and how many were in `learned`.

    Raises UserError when there are none.
    """
    texts = query_texts(config.queries) if config.queries else _all_captions(store, config.where)
    distinct = list(dict.fromkeys(text.strip() for text in texts if text and text.strip()))
    source = (
        f"in {shown(config.queries)}" if config.queries else f"among the captions of the store {store.uri}"
    )
    if not distinct:
        raise UserError(f"no queries {source}: give --queries a file with a `query` column")
    unseen = [query for query in distinct if " ".join(query.split()) not in learned]
    if not unseen:
        raise UserError(
            f"all {len(distinct)} queries {source} were labelled or people chose results for them, so "
            "alignment may have trained on them: give --queries a file of others"
        )
    return draw(unseen, config.num_queries, config.seed), len(distinct) - len(unseen)


def _all_captions(store: Store, where: str | None) -> list[str]:
    return sorted(set(store.read("images", ["caption"], where).to_pydict()["caption"]) - {""})


def load_captions(
    config: EvaluateConfig, store: Store, gallery: Set[str], learned: Set[str] | None = frozenset()
) -> Captions:
    """The captions whose recall is measured.

    Args:
        gallery: image_ids that all encoders have embedded.
        learned: images whose captions alignment or its guard used, None if that is unknown.
    """
    table = store.read("images", ["image_id", "caption", "detailed_caption"], config.where)
    rows = [row for row in table.to_pylist() if row["image_id"] in gallery]
    column = "detailed_caption" if any(row["detailed_caption"] for row in rows) else "caption"
    captions = {row["image_id"]: row[column] for row in rows if row[column]}
    return sample_captions(captions, column, config.num_caption_queries, config.seed, learned)


def sample_captions(
    captions: Mapping[str, str], column: str, num: int, seed: int, learned: Set[str] | None = frozenset()
) -> Captions:
    """A seeded sample of the distinct captions of `captions` (image_id -> caption), without those that any
    image of `learned` has. If `learned` is unknown, every image outside the part "test" counts as learned.

    Captions of the part "test" come first, so that encoders trained on different images are measured on the
    same captions; others fill up a sample that is too small.
    """
    times = Counter(captions.values())
    tested = {image_id for image_id in captions if part_of(image_id) == "test"}
    learned = captions.keys() - tested if learned is None else learned & captions.keys()
    known, test = ({captions[image_id] for image_id in ids} for ids in (learned, tested))
    # Shuffled, so that the first few are a fair sample too: the teacher searches only those.
    shuffled = np.random.default_rng(seed).permutation(sorted(times.keys() - known)).tolist()
    chosen = sorted(shuffled, key=lambda text: text not in test)[: num or None]
    index = {text: i for i, text in enumerate(chosen)}
    owners = {image_id: index.get(text, -1) for image_id, text in captions.items()}
    num_sharing = sum(count for count in times.values() if count > 1)
    num_test = len(test.intersection(chosen))
    return Captions(tuple(chosen), owners, column, len(captions), num_sharing, len(known), num_test)


def load_votes(
    config: EvaluateConfig, store: Store, embedded: Set[str], learned: Set[str] = frozenset()
) -> tuple[list[VoteTable], list[VoteTable]]:
    """(HPIR-form tables, pair tables) as configured.

    Args:
        embedded: image_ids that all encoders have embedded.
        learned: queries whose rows are skipped.

    Raises UserError for an unreadable table, or one without any usable row.
    """
    if not config.hpir and not config.pairs:
        return [], []
    images = store.read("images", ["image_id", "uri"]).to_pydict()
    pairs = zip(images["image_id"], images["uri"], strict=True)
    uris = {image_id: uri for image_id, uri in pairs if image_id in embedded}
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
            f"no row of {shown(path)} names images that every compared encoder has embedded: "
            f"`kallos ingest` them, then `kallos index --encoder {config.aligned}`"
        )
    unseen = [row for row in kept if row.query not in learned]
    if not unseen:
        raise UserError(
            f"every row of {shown(path)} is on a query that was labelled or that people chose results for: "
            "collect votes on other queries"
        )
    drawn = draw(unseen, config.num_votes, config.seed)
    return VoteTable(path, tuple(drawn), len(rows) - len(kept), len(kept) - len(unseen))
