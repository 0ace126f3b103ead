"""Quality against ordinary retrieval between an encoder and its parent: the curve of WiSE-FT.

The weights (1 - a) theta_ref + a theta (arXiv 2109.01903) are measured for several a. Nothing is written to
the tables: the gallery is embedded in memory, from the stored previews (the index takes the originals), so
that the curve of both towers starts a little beside what the tables give.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from actors.encoder import Encoder
from actors.images import decode, pixels
from cluster.tables import Store, embeddings_table
from jobs import command
from jobs.evaluate import DIVERSITY_K, EvaluateConfig, figures, hpir, metrics
from jobs.evaluate.asking import Asked, gather
from jobs.evaluate.inputs import Captions
from jobs.evaluate.systems import Answers, rows_of, vectors_of

BATCH_SIZE = 64
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Gallery:
    """What is searched: image_ids, which of them count as the gallery, and their pixels.

    inside: bool [N]; the others are only voted on. pixels: uint8 [N, 3, H, W].
    """

    image_ids: list[str]
    inside: np.ndarray
    pixels: np.ndarray


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
        inside = np.flatnonzero(self.gallery.inside)
        owners = np.array([captions.owners.get(self.gallery.image_ids[i], -1) for i in inside], np.int64)
        texts = self.encoder.encode_texts(captions.texts)
        return metrics.text_to_image_ranks(texts, lambda: [(owners, self.vectors[inside])])

    def similarities(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """Cosine similarity of each (query, image_id)."""
        queries = list(dict.fromkeys(query for query, _ in pairs))
        texts = dict(zip(queries, self.encoder.encode_texts(queries), strict=True)) if queries else {}
        return {(q, i): float(texts[q] @ self.vectors[self.place[i]]) for q, i in pairs}


def load_gallery(store: Store, asked: Asked, encoder: Encoder) -> Gallery:
    """The evaluated gallery and the images that people voted on, decoded as the encoder takes them."""
    image_ids = sorted(asked.gallery | {image_id for _, image_id in asked.voted})
    found = {
        row["image_id"]: pixels(decode(row["preview"]), encoder.fit)
        for row in rows_of(store, "images", ["image_id", "preview"], image_ids)
    }
    stacked = np.stack([found[image_id] for image_id in image_ids])
    return Gallery(image_ids, np.array([image_id in asked.gallery for image_id in image_ids]), stacked)


def sweep(
    config: EvaluateConfig, parent: str, child: str, alphas: Sequence[float], *, child_alpha: float = 1.0
) -> dict[float, dict[str, figures.Series]]:
    """a -> metric -> values by query, of the encoders between parent (a = 0) and what was trained (a = 1).

    parent, child: aliases or fingerprints; only the parent needs its gallery embedded. child_alpha: where the
    child stands between the two, 1 = as trained. A child that left the image tower alone is measured with the
    parent's stored vectors.
    """
    profile, store = command.settings(config)
    records = [store.encoder(name) for name in (parent, child)]
    asked = gather(config, store, records[:1])
    # All of this process's cores: no actor runs beside it.
    loading = {"precision": profile.encoder.precision, "num_threads": os.cpu_count() or 1}
    ends = [Encoder.load(record.checkpoint, **loading) for record in records]
    gallery = load_gallery(store, asked, ends[0])
    same_images = ends[0].image_fingerprint == ends[1].image_fingerprint
    table = embeddings_table(records[0].encoder)
    stored = vectors_of(store, table, gallery.image_ids) if same_images else {}
    start, end = ({k: v.clone() for k, v in e.model.state_dict().items()} for e in ends)
    found = {}
    for alpha in alphas:
        encoder = ends[0]
        encoder.model.load_state_dict(_between(start, end, alpha / child_alpha))
        vectors = (
            np.stack([stored[image_id] for image_id in gallery.image_ids])
            if same_images
            else np.concatenate([encoder.encode_images(part) for part in _parts(gallery.pixels)])
        )
        found[alpha] = _series(InMemorySystem(encoder, gallery, vectors), asked)
    return found


def _parts(images: np.ndarray) -> list[np.ndarray]:
    return np.array_split(images, max(1, -(-len(images) // BATCH_SIZE)))


def _between(
    start: Mapping[str, torch.Tensor], end: Mapping[str, torch.Tensor], alpha: float
) -> dict[str, torch.Tensor]:
    """(1 - alpha) start + alpha end, beyond the end too; what is no real number is the start's."""
    return {
        name: value.lerp(end[name].to(value.dtype), alpha) if value.is_floating_point() else value
        for name, value in start.items()
    }


def _series(system: InMemorySystem, asked: Asked) -> dict[str, figures.Series]:
    similarities = system.similarities(asked.voted)
    votes = {table.name: hpir.group_means(table.rows, similarities) for table in asked.votes}
    results = system.search(asked.queries, DIVERSITY_K)
    ranks = system.caption_ranks(asked.captions)
    answers = Answers(results, ranks, votes, diversity=np.zeros(len(results)))
    found = figures.series_of(answers, asked.queries, asked.votes, asked.truth)
    return {name: series for name, series in found.items() if not name.startswith("vendi")}
