"""WiSE-FT curves and training curves: every metric that needs no judge, for weights in memory.

WiSE-FT: the weights (1 - a) theta_parent + a theta_child for several a (arXiv 2109.01903). Weights that are
not registered have no table of vectors: the gallery is embedded in memory, from its previews.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from actors.encoder import Encoder
from actors.images import decode, pixels
from cluster import command
from cluster.tables import EncoderRecord, embeddings_table
from jobs.evaluate.config import EvaluateConfig
from jobs.evaluate.figures.per_query import QueryValues, values_of
from jobs.evaluate.gallery import vectors_of
from jobs.evaluate.inputs import EvaluationInputs, read_inputs
from jobs.evaluate.systems import SearchSystem, diversity

BATCH_SIZE = 64
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)

Weights = Mapping[str, torch.Tensor]
Values = dict[str, QueryValues]  # metric -> values by query


@dataclass(frozen=True)
class Gallery:
    """The images that are searched or voted on.

    inside: bool [N], whether an image is searched; the others are only voted on. parent_vectors: float32
    [N, D], as stored.
    """

    image_ids: list[str]
    inside: np.ndarray
    parent_vectors: np.ndarray


class InMemorySystem(SearchSystem):
    """An encoder whose vectors are in memory: `matrix`, float32 [N, D], one row per image of `gallery`."""

    def __init__(self, encoder: Encoder, gallery: Gallery, matrix: np.ndarray) -> None:
        self.encoder, self.gallery, self.matrix = encoder, gallery, matrix

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """See `SearchSystem`."""
        return self.encoder.encode_texts(texts)

    def search_vectors(self, vectors: np.ndarray, k: int) -> list[list[str]]:
        """See `SearchSystem`."""
        scores = vectors @ self.matrix.T
        scores[:, ~self.gallery.inside] = -np.inf
        return [[self.gallery.image_ids[i] for i in np.argsort(-row, kind="stable")[:k]] for row in scores]

    def blocks(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """See `SearchSystem`."""
        rows = np.flatnonzero(self.gallery.inside)
        yield [self.gallery.image_ids[i] for i in rows], self.matrix[rows]

    def vectors(self, image_ids: Iterable[str]) -> dict[str, np.ndarray]:
        """See `SearchSystem`; those of the whole gallery."""
        return dict(zip(self.gallery.image_ids, self.matrix, strict=True))


class WeightsEvaluator:
    """Evaluates weights of the parent's architecture on one gallery.

    Stored vectors are used where they exist: the parent's, and those of a child that has been indexed. Raises
    UserError for anything missing or malformed in `config`.
    """

    def __init__(self, config: EvaluateConfig, parent: str, child: str) -> None:
        profile, self.store = command.settings(config)
        self.parent, self.child = (self.store.encoder(name) for name in (parent, child))
        self.inputs = read_inputs(config, self.store, [self.parent], [self.child])
        # All cores of this process: no actor runs at the same time.
        loading = {"precision": profile.encoder.precision, "num_threads": os.cpu_count() or 1}
        self.encoder = Encoder.load(self.parent.checkpoint, **loading)
        end = Encoder.load(self.child.checkpoint, **loading)
        self.start, self.end = (
            {k: v.clone() for k, v in e.model.state_dict().items()} for e in (self.encoder, end)
        )
        self.same_images = self.encoder.image_fingerprint == end.image_fingerprint
        image_ids = sorted(self.inputs.gallery | {image_id for _, image_id in self.inputs.voted_pairs})
        inside = np.array([image_id in self.inputs.gallery for image_id in image_ids])
        vectors = self._stored(self.parent, image_ids)
        assert vectors is not None  # `read_inputs` has checked it
        self.gallery = Gallery(image_ids, inside, vectors)
        self._pixels: np.ndarray | None = None

    def between(self, alpha: float, child_alpha: float = 1.0) -> Values:
        """The metrics at (1 - alpha) parent + alpha trained; the child's own alpha is `child_alpha`."""
        known = None
        if self.same_images or alpha == 0:
            known = self.gallery.parent_vectors
        elif alpha == child_alpha:
            known = self._stored(self.child, self.gallery.image_ids)
        return self.of(_between(self.start, self.end, alpha / child_alpha), known)

    def of(self, weights: Weights, vectors: np.ndarray | None = None) -> Values:
        """The metrics of those weights; missing ones are the parent's. `vectors`: the gallery's, if known."""
        self.encoder.model.load_state_dict({**self.start, **weights})
        if vectors is None:
            parts = (self.encoder.encode_images(part) for part in _parts(self._gallery_pixels()))
            vectors = np.concatenate(list(parts))
        return _values(InMemorySystem(self.encoder, self.gallery, vectors), self.inputs)

    def _stored(self, record: EncoderRecord, image_ids: Sequence[str]) -> np.ndarray | None:
        """float32 [N, D]; None if the encoder has not embedded all of them."""
        table = embeddings_table(record.encoder)
        found = vectors_of(self.store, table, image_ids) if self.store.exists(table) else {}
        return np.stack([found[i] for i in image_ids]) if len(found) == len(image_ids) else None

    def _gallery_pixels(self) -> np.ndarray:
        """uint8 [N, 3, H, W], the previews in the encoder's input size, decoded once."""
        if self._pixels is None:
            rows = self.store.rows_of("images", ["image_id", "preview"], self.gallery.image_ids)
            found = {row["image_id"]: pixels(decode(row["preview"]), self.encoder.fit) for row in rows}
            self._pixels = np.stack([found[image_id] for image_id in self.gallery.image_ids])
        return self._pixels


def sweep(
    config: EvaluateConfig, parent: str, child: str, alphas: Sequence[float], *, child_alpha: float = 1.0
) -> dict[float, Values]:
    """a -> the metrics of the weights between the parent (a = 0) and the end of training (a = 1).

    parent, child: aliases or fingerprints; only the parent's gallery must be embedded.
    """
    evaluator = WeightsEvaluator(config, parent, child)
    return {alpha: evaluator.between(alpha, child_alpha) for alpha in alphas}


def training_curve(config: EvaluateConfig, parent: str, child: str, training: str) -> dict[int, Values]:
    """epoch -> the metrics of the weights after it, as trained; epoch 0 is the parent.

    training: the training state that `kallos align` reports, with the weights of every epoch.
    """
    from jobs.align.train import checkpoints, load_state  # needs Ray Train

    evaluator = WeightsEvaluator(config, parent, child)
    curve = {0: evaluator.between(0.0)}
    for checkpoint, metrics in checkpoints(Path(training)):
        learned = load_state(checkpoint)["learned"]  # weights by their names in the open_clip model
        text_only = not any(name.startswith("visual.") for name in learned)
        vectors = evaluator.gallery.parent_vectors if text_only else None
        curve[metrics["epoch"]] = evaluator.of(learned, vectors)
    return curve


def _parts(images: np.ndarray) -> Iterable[np.ndarray]:
    return np.array_split(images, max(1, -(-len(images) // BATCH_SIZE)))


def _between(start: Weights, end: Weights, alpha: float) -> Weights:
    """(1 - alpha) start + alpha end; alpha may exceed 1. Integer buffers are the start's."""
    return {
        name: value.lerp(end[name].to(value.dtype), alpha) if value.is_floating_point() else value
        for name, value in start.items()
    }


def _values(system: InMemorySystem, inputs: EvaluationInputs) -> Values:
    found = system.results(inputs)
    # By the parent's vectors, so that no encoder measures its own diversity.
    vectors = dict(zip(system.gallery.image_ids, system.gallery.parent_vectors, strict=True))
    return values_of(replace(found, diversity=diversity(found.results, vectors)), inputs)
