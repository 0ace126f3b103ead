"""What each system answers: result rows, caption ranks, and its score of an image for a query.

An encoder answers from its own embeddings table; the teacher re-orders what the baseline retrieves.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from actors.caption_pairs import text_to_image_ranks
from actors.cascade import encoder_ratings
from actors.encoder import Encoder
from actors.retriever import Retriever
from actors.vectors import vector_matrix
from cluster.errors import UserError
from cluster.profile import EncoderModel
from cluster.sql import in_list
from cluster.tables import EncoderRecord, Store, embeddings_table
from jobs.evaluate.config import TOP_K
from jobs.evaluate.figures import metrics
from jobs.evaluate.inputs import Captions

BLOCK_ROWS = 8192
IDS_PER_READ = 500


@dataclass(frozen=True)
class Answers:
    """Everything one system was asked.

    results: image_ids of each query's first `DIVERSITY_K` results, best first.
    caption_ranks: int [C], rank of each caption's best own image; C may be a sample's first captions.
    votes: table name -> float [N, 2], mean score of group A and B of each row.
    diversity: float [Q], Vendi score of each query's results.
    recognised: bool [N], whether each gallery image is classified as its subject; empty if not measured.
    """

    results: list[list[str]]
    caption_ranks: np.ndarray
    votes: dict[str, np.ndarray] = field(default_factory=dict)
    diversity: np.ndarray = field(default_factory=lambda: np.zeros(0))
    recognised: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    @property
    def rows(self) -> list[list[str]]:
        """image_ids of each query's first `TOP_K` results: what is judged and shown."""
        return [ids[:TOP_K] for ids in self.results]


class EncoderSystem:
    """One registered encoder with its embeddings table, as the search endpoint would use it."""

    def __init__(self, store: Store, record: EncoderRecord, settings: EncoderModel, *, where: str) -> None:
        self.store = store
        self.where = where
        self.table = embeddings_table(record.encoder)
        self.encoder = Encoder.load(
            record.checkpoint, precision=settings.precision, num_threads=settings.num_threads
        )
        self.retriever = Retriever(store, record.encoder, self.encoder)

    def search(self, texts: Sequence[str], k: int) -> list[list[str]]:
        """image_ids of the k nearest images of each text, best first; exact, so that no index is measured."""
        found = self.retriever.search(self.encoder.encode_texts(texts), k, where=self.where, exact=True)
        return [[row["image_id"] for row in rows] for rows in found]

    def caption_ranks(self, captions: Captions) -> np.ndarray:
        """Exact rank of each caption's best own image in the whole gallery, int [C]."""
        texts = self.encoder.encode_texts(captions.texts)
        return text_to_image_ranks(texts, lambda: self._blocks(captions.owners))

    def _blocks(self, owners: dict[str, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for ids, vectors in scan_vectors(self.store, self.table, self.where):
            yield np.array([owners.get(image_id, -1) for image_id in ids], np.int64), vectors

    def similarities(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """Cosine similarity of each (query, image_id)."""
        if not pairs:
            return {}
        queries = list(dict.fromkeys(query for query, _ in pairs))
        texts = dict(zip(queries, self.encoder.encode_texts(queries), strict=True))
        images = vectors_of(self.store, self.table, {image_id for _, image_id in pairs})
        return {(query, image_id): float(texts[query] @ images[image_id]) for query, image_id in pairs}

    def diversity(self, results: Sequence[Sequence[str]]) -> np.ndarray:
        """Vendi score of each list of images as this encoder sees them, float [Q]; 0 for an empty list."""
        images = vectors_of(self.store, self.table, {image_id for ids in results for image_id in ids})
        return diversity(results, images)

    def recognised(self, labels: Mapping[str, str]) -> np.ndarray:
        """`recognised` of the gallery."""
        return recognised(self.encoder, labels, scan_vectors(self.store, self.table, self.where))

    def ratings(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """How well each image answers each query by this encoder, in [1, 5]: see `encoder_ratings`."""
        similarities = self.similarities(pairs)
        queries = list(dict.fromkeys(query for query, _ in pairs))
        best = self.retriever.search(self.encoder.encode_texts(queries), 1, where=self.where, exact=True)
        top = {query: rows[0]["score"] for query, rows in zip(queries, best, strict=True)}
        found = np.array([similarities[pair] for pair in pairs])
        nearest = np.array([top[query] for query, _ in pairs])
        rated = encoder_ratings(found, nearest, self.encoder.temperature)
        return dict(zip(pairs, rated.tolist(), strict=True))


def diversity(results: Sequence[Sequence[str]], images: Mapping[str, np.ndarray]) -> np.ndarray:
    """Vendi score of each list of images by those vectors, float [Q]; 0 for an empty list."""
    listed = [[images[image_id] for image_id in ids] for ids in results]
    return np.array([metrics.vendi_score(np.stack(vectors)) if vectors else 0.0 for vectors in listed])


def recognised(
    encoder: Encoder, labels: Mapping[str, str], blocks: Iterable[tuple[Sequence[str], np.ndarray]]
) -> np.ndarray:
    """Zero-shot classification, bool [N]: is an image nearest to the words of its label?

    `labels` maps image_id -> what is in it; the classes are all that occur, each as the text "a <label>".
    `blocks` are (image_ids, vectors float32 [N, D]) of the gallery; an image without a label is left out.
    """
    classes = sorted(set(labels.values()))
    texts = encoder.encode_texts([f"a {label}" for label in classes])
    found = {}
    for ids, vectors in blocks:
        found |= dict(zip(ids, (vectors @ texts.T).argmax(axis=1).tolist(), strict=True))
    labelled = sorted(found.keys() & labels.keys())
    return np.array([classes[found[image_id]] == labels[image_id] for image_id in labelled], bool)


def scan_vectors(store: Store, table: str, where: str) -> Iterator[tuple[list[str], np.ndarray]]:
    """(image_ids, vectors float32 [N, D]) block by block, filtered by `where` (SQL, may be empty)."""
    query = store.open(table).search().select(["image_id", "vector"])
    query = query.where(where) if where else query
    for batch in query.to_batches(batch_size=BLOCK_ROWS):
        if batch.num_rows:
            yield batch["image_id"].to_pylist(), vector_matrix(batch["vector"])


def rows_of(store: Store, table: str, columns: Sequence[str], image_ids: Iterable[str]) -> Iterator[dict]:
    """The table's rows of those images, a few hundred per read."""
    ids = sorted(image_ids)
    for start in range(0, len(ids), IDS_PER_READ):
        where = in_list("image_id", ids[start : start + IDS_PER_READ])
        yield from store.read(table, columns, where).to_pylist()


def vectors_of(store: Store, table: str, image_ids: Iterable[str]) -> dict[str, np.ndarray]:
    """image_id -> vector float32 [D] of those images."""
    found = rows_of(store, table, ["image_id", "vector"], image_ids)
    return {row["image_id"]: np.asarray(row["vector"], np.float32) for row in found}


def embedded_ids(store: Store, fingerprint: str, where: str = "") -> set[str]:
    """image_ids the encoder has embedded. Raises UserError when it has no table or the filter is wrong."""
    try:
        rows = store.read(embeddings_table(fingerprint), ["image_id"], where or None)
    except ValueError as error:
        if isinstance(error, UserError) or not where:
            raise
        raise UserError(f"--where {where!r} is no filter on the embeddings: {error}") from None
    return set(rows["image_id"].to_pylist())
