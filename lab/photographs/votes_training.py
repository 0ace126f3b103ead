"""Aligns an encoder with people's votes by DPO, using the loss and the learner of `kallos align`.

Unlike `kallos align`, it takes its preferences from votes, crops the photographs at random, and keeps the
step that does best on photographs set aside. There is no partial order and no contrastive loss. No weights
are written to disk. Shapes: N photographs, P pairs, D dimensions.
"""

import copy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from actors.encoder import Encoder
from cluster.profile import Align
from jobs.align.learner import Learner
from jobs.align.objectives import dpo_loss
from lab.photographs.dataset import Fold, RatedPhotographs
from lab.photographs.features import encode
from lab.preference_batch import preference_batch

Mode = Literal["both", "text"]


@dataclass(frozen=True)
class TrainingOptions:
    """How the encoder is aligned with the votes; everything else is the default of `Align`."""

    num_steps: int = 48  # optimiser steps at most
    steps_per_check: int = 8  # steps between two measurements on the validation photographs
    photographs_per_step: int = 40  # every pair among them takes part
    learning_rate: float = 2e-4  # peak step size of AdamW
    validation_share: float = 0.25  # of the training photographs, only used to choose the step, in [0, 1)
    smallest_crop: float = 0.7  # of the side of a photograph, in (0, 1]


def align_with_votes(
    encoder: Encoder,
    pixels: np.ndarray,
    rated: RatedPhotographs,
    fold: Fold,
    *,
    mode: Mode,
    options: TrainingOptions,
    seed: int,
) -> np.ndarray:
    """Cosine of every pair's query with both its photographs after alignment, float [P, 2].

    The preferences are the votes on pairs of training photographs, for each pair's query; `pixels` uint8
    [N, 3, H, W]. Mode `both` trains both towers on randomly cropped and mirrored photographs, mode `text`
    trains the text tower alone on stored vectors. The scores returned are those of the step with the lowest
    loss on the validation photographs, step 0 included. `encoder` itself is not changed.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(fold.train)
    num_validation = round(options.validation_share * len(shuffled))
    validation, train = shuffled[:num_validation], shuffled[num_validation:]
    settings = Align(mode=mode, epochs=1, learning_rate=options.learning_rate, pretrain_weight=0.0)
    # bfloat16 halves the time of a step where the machine supports it; scores use the encoder's precision.
    policy, reference = (_with_precision(encoder, "bf16", copy.deepcopy(encoder.model)) for _ in range(2))
    learner = Learner(policy, settings, options.num_steps)
    measured = _with_precision(encoder, encoder.precision, policy.model)
    stored = encode(encoder, pixels)
    before = query_scores(encoder, stored, rated)
    best_loss, best_scores = _vote_loss(before, before, rated, validation, encoder, settings), before
    for step in range(1, options.num_steps + 1):
        drawn = rng.choice(train, min(options.photographs_per_step, len(train)), replace=False)
        images = stored[drawn] if mode == "text" else cropped(pixels[drawn], options.smallest_crop, rng)
        batch = _vote_batch(reference, images, rated, drawn)
        if batch is None:
            continue
        learner.step([batch])
        if step % options.steps_per_check == 0 or step == options.num_steps:
            after = query_scores(measured, stored if mode == "text" else encode(measured, pixels), rated)
            loss = _vote_loss(after, before, rated, validation, encoder, settings)
            if loss < best_loss:
                best_loss, best_scores = loss, after
    return best_scores


def cropped(pixels: np.ndarray, smallest: float, rng: np.random.Generator) -> np.ndarray:
    """Crop each image to a random square of `smallest` to 1 of its side, and mirror half of them.

    uint8 [B, 3, H, W] -> float32 of the same shape and range. Colours are not changed, because they affect
    beauty more than anything else.
    """
    scale = rng.uniform(smallest, 1, len(pixels))
    mirror = rng.choice([-1.0, 1.0], len(pixels))
    theta = np.zeros((len(pixels), 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 1, 1] = scale * mirror, scale
    theta[:, :, 2] = rng.uniform(-1, 1, (len(pixels), 2)) * (1 - scale)[:, None]
    grid = functional.affine_grid(torch.from_numpy(theta), list(pixels.shape), align_corners=False)
    images = torch.from_numpy(pixels).float()
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False).numpy()


def query_scores(encoder: Encoder, vectors: np.ndarray, rated: RatedPhotographs) -> np.ndarray:
    """Cosine of each pair's query with both its photographs, float [P, 2]; `vectors` float32 [N, D]."""
    queries, query = np.unique(rated.queries, return_inverse=True)
    texts = encoder.encode_texts(queries.tolist())[query]
    return np.einsum("pd,psd->ps", texts, vectors[rated.pairs])


def _with_precision(encoder: Encoder, precision: str, model: torch.nn.Module) -> Encoder:
    return Encoder(model, encoder.tokenizer, encoder.config, precision=precision, device=encoder.device)


def _vote_batch(
    reference: Encoder, images: np.ndarray, rated: RatedPhotographs, drawn: np.ndarray
) -> dict[str, Any] | None:
    """All pairs among the drawn photographs as a batch of the learner; None where nobody voted on any.

    `images` are the drawn photographs: pixels [B, 3, H, W], or vectors [B, D].
    """
    pairs, share_a = _votes_among(rated, drawn)
    if not len(pairs):
        return None
    queries, query = np.unique(rated.queries[pairs], return_inverse=True)
    index = {int(row): position for position, row in enumerate(drawn)}
    a, b = np.array([[index[int(row)] for row in rated.pairs[pair]] for pair in pairs]).T
    vectors = images if images.ndim == 2 else reference.encode_images(images)
    scores = vectors @ reference.encode_texts(queries.tolist()).T / reference.temperature
    return preference_batch(
        images, queries.tolist(), query=query, winner=a, loser=b, p_winner=share_a, reference_scores=scores
    )


def _votes_among(rated: RatedPhotographs, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs whose photographs are both in `rows`, and the share of votes for A, float32 in [0, 1]."""
    for_a, for_b = np.array([(vote.a, vote.b) for vote in rated.votes], np.float32).T
    pairs = np.flatnonzero(np.isin(rated.pairs, rows).all(axis=1) & (for_a + for_b > 0))
    return pairs, for_a[pairs] / (for_a + for_b)[pairs]


def _vote_loss(
    after: np.ndarray,
    before: np.ndarray,
    rated: RatedPhotographs,
    rows: np.ndarray,
    encoder: Encoder,
    settings: Align,
) -> float:
    """Mean DPO loss of the pairs among `rows`, given cosines [P, 2]; infinite where there are none."""
    pairs, share_a = _votes_among(rated, rows)
    if not len(pairs):
        return float("inf")
    policy, reference = (_pair_scores(cosines[pairs], encoder.temperature) for cosines in (after, before))
    smoothing = 1 - torch.from_numpy(share_a)
    losses, _, _ = dpo_loss(*policy, *reference, beta=settings.beta, label_smoothing=smoothing)
    return float(losses.mean())


def _pair_scores(cosines: np.ndarray, temperature: float) -> tuple[Tensor, Tensor]:
    """Cosines [P, 2] -> scores of A and of B, float32 [P] each."""
    a, b = torch.from_numpy(cosines / temperature).float().T
    return a, b
