"""The encoders that are compared: their results, caption ranks, and similarities of images to queries."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from actors.caption_pairs import image_to_text_ranks, text_to_image_ranks
from actors.cascade import encoder_ratings
from actors.encoder import load_registered
from actors.retriever import Retriever
from cluster.profile import EncoderModel
from cluster.tables import EncoderRecord, Store, embeddings_table
from jobs.evaluate import hpir
from jobs.evaluate.config import DIVERSITY_K, TOP_K
from jobs.evaluate.figures import metrics
from jobs.evaluate.gallery import scan_vectors, vectors_of
from jobs.evaluate.inputs import Captions, EvaluationInputs


@dataclass(frozen=True)
class SystemResults:
    """What one system returned for all inputs of an evaluation.

    results: image_ids of each query's first `DIVERSITY_K` results, best first.
    caption_ranks: int [C], rank of each caption's best own image, for the first C captions of the sample.
    vote_scores: table name -> float [N, 2], mean score of group A and B of each row.
    diversity: float [Q], Vendi score of each query's results.
    image_ranks: image_id -> rank of its own caption among all captions of the sample, for each gallery image
    with a caption of the sample; empty if not measured.
    zero_shot_hits: image_id -> whether the image is classified by its label; empty if not measured.
    """

    results: list[list[str]]
    caption_ranks: np.ndarray
    vote_scores: dict[str, np.ndarray] = field(default_factory=dict)
    diversity: np.ndarray = field(default_factory=lambda: np.zeros(0))
    image_ranks: Mapping[str, int] = field(default_factory=dict)
    zero_shot_hits: Mapping[str, bool] = field(default_factory=dict)

    @property
    def top(self) -> list[list[str]]:
        """image_ids of each query's first `TOP_K` results, which are judged and shown."""
        return [ids[:TOP_K] for ids in self.results]


class SearchSystem(ABC):
    """One encoder with the vectors of a gallery."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> L2-normalised float32 [N, D]."""

    @abstractmethod
    def search_vectors(self, vectors: np.ndarray, k: int) -> list[list[str]]:
        """image_ids of the k images nearest to each vector, float32 [Q, D], best first."""

    @abstractmethod
    def blocks(self) -> Iterator[tuple[Sequence[str], np.ndarray]]:
        """(image_ids, vectors float32 [N, D]) of the whole gallery."""

    @abstractmethod
    def vectors(self, image_ids: Iterable[str]) -> Mapping[str, np.ndarray]:
        """image_id -> vector float32 [D], for images outside the gallery too."""

    def search(self, texts: Sequence[str], k: int) -> list[list[str]]:
        """image_ids of the k nearest images of each text, best first."""
        return self.search_vectors(self.encode_texts(texts), k)

    def results(self, inputs: EvaluationInputs) -> SystemResults:
        """Results, caption ranks, vote scores and zero-shot hits, without the diversity."""
        similarities = self.similarities(inputs.voted_pairs)
        return SystemResults(
            self.search(inputs.queries, DIVERSITY_K),
            self.caption_ranks(inputs.captions),
            {table.name: hpir.group_means(table.rows, similarities) for table in inputs.vote_tables},
            image_ranks=self.image_ranks(inputs.captions),
            zero_shot_hits=self.zero_shot_hits(inputs.labels),
        )

    def caption_ranks(self, captions: Captions) -> np.ndarray:
        """Exact rank of each caption's best own image in the whole gallery, int [C]."""

        def owned() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for ids, vectors in self.blocks():
                yield np.array([captions.owners.get(image_id, -1) for image_id in ids], np.int64), vectors

        return text_to_image_ranks(self.encode_texts(captions.texts), owned)

    def image_ranks(self, captions: Captions) -> dict[str, int]:
        """image_id -> exact rank of its own caption in the sample, for the images with a sampled caption."""
        texts = self.encode_texts(captions.texts)
        ranks: dict[str, int] = {}
        for ids, vectors in self.blocks():
            owners = np.array([captions.owners.get(image_id, -1) for image_id in ids], np.int64)
            rows = np.flatnonzero(owners >= 0)
            found = image_to_text_ranks(vectors[rows], owners[rows], texts)
            ranks |= {ids[int(row)]: int(rank) for row, rank in zip(rows, found, strict=True)}
        return ranks

    def similarities(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """Cosine similarity of each (query, image_id)."""
        if not pairs:
            return {}
        queries = list(dict.fromkeys(query for query, _ in pairs))
        texts = dict(zip(queries, self.encode_texts(queries), strict=True))
        images = self.vectors({image_id for _, image_id in pairs})
        return {(query, image_id): float(texts[query] @ images[image_id]) for query, image_id in pairs}

    def zero_shot_hits(self, labels: Mapping[str, str]) -> dict[str, bool]:
        """Zero-shot classification: image_id -> is the image nearest to the text of its own label?

        labels: image_id -> what it shows; the classes are the distinct labels, as texts "a <label>".
        Gallery images without a label are skipped.
        """
        if not labels:
            return {}
        classes = sorted(set(labels.values()))
        texts = self.encode_texts([f"a {label}" for label in classes])
        nearest: dict[str, int] = {}
        for ids, vectors in self.blocks():
            nearest |= dict(zip(ids, (vectors @ texts.T).argmax(axis=1).tolist(), strict=True))
        return {i: classes[found] == labels[i] for i, found in nearest.items() if i in labels}


class EncoderSystem(SearchSystem):
    """One registered encoder with its embeddings table, as the search endpoint uses it."""

    def __init__(
        self, store: Store, record: EncoderRecord, settings: EncoderModel, *, where: str | None
    ) -> None:
        self.store = store
        self.where = where
        self.table = embeddings_table(record.encoder)
        self.encoder = load_registered(record, precision=settings.precision, num_threads=settings.num_threads)
        self.retriever = Retriever(store, record.encoder)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """See `SearchSystem`."""
        return self.encoder.encode_texts(texts)

    def search_vectors(self, vectors: np.ndarray, k: int) -> list[list[str]]:
        """See `SearchSystem`; an exact search, so that the figures do not depend on an index."""
        return [[row["image_id"] for row in rows] for rows in self._nearest(vectors, k)]

    def _nearest(self, vectors: np.ndarray, k: int) -> list[list[dict]]:
        return self.retriever.search(vectors, k, where=self.where, exact=True)

    def blocks(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """See `SearchSystem`."""
        return scan_vectors(self.store, self.table, self.where)

    def vectors(self, image_ids: Iterable[str]) -> dict[str, np.ndarray]:
        """See `SearchSystem`."""
        return vectors_of(self.store, self.table, image_ids)

    def ratings(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """How accurate each image is for each query by this encoder, in [1, 5]: see `encoder_ratings`."""
        similarities = self.similarities(pairs)
        queries = list(dict.fromkeys(query for query, _ in pairs))
        first = self._nearest(self.encode_texts(queries), 1)
        top = {query: rows[0]["score"] for query, rows in zip(queries, first, strict=True)}
        found = np.array([similarities[pair] for pair in pairs])
        nearest = np.array([top[query] for query, _ in pairs])
        rated = encoder_ratings(found, nearest, self.encoder.temperature)
        return dict(zip(pairs, rated.tolist(), strict=True))


def diversity(results: Sequence[Sequence[str]], vectors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Vendi score of each list of image_ids by those vectors, float [Q]; 0 for an empty list.

    Images without a vector were deleted since they were found, and are skipped.
    """
    listed = [[vectors[image_id] for image_id in ids if image_id in vectors] for ids in results]
    return np.array([metrics.vendi_score(np.stack(each)) if each else 0.0 for each in listed])
