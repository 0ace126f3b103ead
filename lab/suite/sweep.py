"""What lies between two encoders, and what each epoch of training gave: every figure that needs no judge.

WiSE-FT: the weights (1 - a) theta_parent + a theta_child for several a (arXiv 2109.01903). Weights that are
registered nowhere have no table of vectors: the gallery is embedded in memory, from its previews.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from actors.caption_pairs import text_to_image_ranks
from actors.encoder import Encoder
from actors.images import decode, pixels
from cluster import command
from cluster.tables import EncoderRecord, embeddings_table
from jobs.evaluate import hpir
from jobs.evaluate.asking import Asked, gather
from jobs.evaluate.config import DIVERSITY_K, EvaluateConfig
from jobs.evaluate.figures import per_query
from jobs.evaluate.inputs import Captions
from jobs.evaluate.systems import Answers, diversity, recognised, rows_of, vectors_of

BATCH_SIZE = 64
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)

Weights = Mapping[str, torch.Tensor]
Figures = dict[str, per_query.Series]  # metric -> values by query


@dataclass(frozen=True)
class Gallery:
    """What is searched: image_ids, which of them count as the gallery, and their vectors before.

    inside: bool [N]; the others are only voted on. before: float32 [N, D], the parent's stored vectors.
    """

    image_ids: list[str]
    inside: np.ndarray
    before: np.ndarray


class InMemorySystem:
    """An encoder with its vectors in memory, float32 [N, D], and the questions of `EncoderSystem`."""

    def __init__(self, encoder: Encoder, gallery: Gallery, vectors: np.ndarray) -> None:
        self.encoder, self.gallery, self.vectors = encoder, gallery, vectors
        self.place = {image_id: i for i, image_id in enumerate(gallery.image_ids)}

    def search(self, texts: Sequence[str], k: int) -> list[list[str]]:
        """image_ids of the k nearest gallery images of each text, best first."""
        scores = self.encoder.encode_texts(texts) @ self.vectors.T
        scores[:, ~self.gallery.inside] = -np.inf
        return [[self.gallery.image_ids[i] for i in np.argsort(-row, kind="stable")[:k]] for row in scores]

    def caption_ranks(self, captions: Captions) -> np.ndarray:
        """Rank of each caption's best own image in the gallery, int [C]."""
        ids, vectors = self._inside()
        owners = np.array([captions.owners.get(image_id, -1) for image_id in ids], np.int64)
        return text_to_image_ranks(self.encoder.encode_texts(captions.texts), lambda: [(owners, vectors)])

    def similarities(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """Cosine similarity of each (query, image_id)."""
        queries = list(dict.fromkeys(query for query, _ in pairs))
        texts = dict(zip(queries, self.encoder.encode_texts(queries), strict=True)) if queries else {}
        return {(q, i): float(texts[q] @ self.vectors[self.place[i]]) for q, i in pairs}

    def recognised(self, labels: Mapping[str, str]) -> np.ndarray:
        """`systems.recognised` of the gallery."""
        return recognised(self.encoder, labels, [self._inside()])

    def _inside(self) -> tuple[list[str], np.ndarray]:
        rows = np.flatnonzero(self.gallery.inside)
        return [self.gallery.image_ids[i] for i in rows], self.vectors[rows]


class Measure:
    """Measures weights of the parent's architecture on one gallery.

    The parent's own vectors are read, and so are those of a child that has been indexed. Raises UserError for
    anything missing or malformed in `config`.
    """

    def __init__(self, config: EvaluateConfig, parent: str, child: str) -> None:
        profile, self.store = command.settings(config)
        self.parent, self.child = (self.store.encoder(name) for name in (parent, child))
        self.asked = gather(config, self.store, [self.parent], [self.child])
        # All of this process's cores: no actor runs beside it.
        loading = {"precision": profile.encoder.precision, "num_threads": os.cpu_count() or 1}
        self.encoder = Encoder.load(self.parent.checkpoint, **loading)
        end = Encoder.load(self.child.checkpoint, **loading)
        self.start, self.end = (
            {k: v.clone() for k, v in e.model.state_dict().items()} for e in (self.encoder, end)
        )
        self.same_images = self.encoder.image_fingerprint == end.image_fingerprint
        image_ids = sorted(self.asked.gallery | {image_id for _, image_id in self.asked.voted})
        inside = np.array([image_id in self.asked.gallery for image_id in image_ids])
        before = self._stored(self.parent, image_ids)
        assert before is not None  # `gather` has looked
        self.gallery = Gallery(image_ids, inside, before)
        self._pixels: np.ndarray | None = None

    def between(self, alpha: float, child_alpha: float = 1.0) -> Figures:
        """The figures at (1 - alpha) parent + alpha trained; `child_alpha` is where the child stands."""
        known = None
        if self.same_images or alpha == 0:
            known = self.gallery.before
        elif alpha == child_alpha:
            known = self._stored(self.child, self.gallery.image_ids)
        return self.of(_between(self.start, self.end, alpha / child_alpha), known)

    def of(self, weights: Weights, vectors: np.ndarray | None = None) -> Figures:
        """The figures of those weights; those that are missing are the parent's. `vectors`: the gallery's."""
        self.encoder.model.load_state_dict({**self.start, **weights})
        if vectors is None:
            parts = (self.encoder.encode_images(part) for part in _parts(self._gallery_pixels()))
            vectors = np.concatenate(list(parts))
        return _figures(InMemorySystem(self.encoder, self.gallery, vectors), self.asked)

    def _stored(self, record: EncoderRecord, image_ids: Sequence[str]) -> np.ndarray | None:
        """float32 [N, D]; None where the encoder has not embedded them all."""
        table = embeddings_table(record.encoder)
        found = vectors_of(self.store, table, image_ids) if self.store.exists(table) else {}
        return np.stack([found[i] for i in image_ids]) if len(found) == len(image_ids) else None

    def _gallery_pixels(self) -> np.ndarray:
        """uint8 [N, 3, H, W], the previews as the encoder takes them, decoded once."""
        if self._pixels is None:
            rows = rows_of(self.store, "images", ["image_id", "preview"], self.gallery.image_ids)
            found = {row["image_id"]: pixels(decode(row["preview"]), self.encoder.fit) for row in rows}
            self._pixels = np.stack([found[image_id] for image_id in self.gallery.image_ids])
        return self._pixels


def sweep(
    config: EvaluateConfig, parent: str, child: str, alphas: Sequence[float], *, child_alpha: float = 1.0
) -> dict[float, Figures]:
    """a -> the figures of the encoder between parent (a = 0) and what was trained (a = 1).

    parent, child: aliases or fingerprints; only the parent needs its gallery embedded.
    """
    measure = Measure(config, parent, child)
    return {alpha: measure.between(alpha, child_alpha) for alpha in alphas}


def training_curve(
    config: EvaluateConfig, parent: str, child: str, epochs: Iterable[tuple[int, Weights]]
) -> dict[int, Figures]:
    """epoch -> the figures of the weights after it, as trained; epoch 0 is the parent.

    epochs: their numbers, and the weights that learned, by their names in the open_clip model.
    """
    measure = Measure(config, parent, child)
    curve = {0: measure.between(0.0)}
    for epoch, learned in epochs:
        text_only = not any(name.startswith("visual.") for name in learned)
        curve[epoch] = measure.of(learned, measure.gallery.before if text_only else None)
    return curve


def _parts(images: np.ndarray) -> Iterable[np.ndarray]:
    return np.array_split(images, max(1, -(-len(images) // BATCH_SIZE)))


def _between(start: Weights, end: Weights, alpha: float) -> Weights:
    """(1 - alpha) start + alpha end, beyond the end too; what is no real number is the start's."""
    return {
        name: value.lerp(end[name].to(value.dtype), alpha) if value.is_floating_point() else value
        for name, value in start.items()
    }


def _figures(system: InMemorySystem, asked: Asked) -> Figures:
    similarities = system.similarities(asked.voted)
    votes = {table.name: hpir.group_means(table.rows, similarities) for table in asked.votes}
    results = system.search(asked.queries, DIVERSITY_K)
    before = dict(zip(system.gallery.image_ids, system.gallery.before, strict=True))
    answers = Answers(
        results,
        system.caption_ranks(asked.captions),
        votes,
        diversity=diversity(results, before),  # as the encoder before sees them: none measures itself
        recognised=system.recognised(asked.labels) if asked.labels else np.zeros(0, bool),
    )
    return per_query.series_of(answers, asked.queries, asked.votes, asked.truth)
