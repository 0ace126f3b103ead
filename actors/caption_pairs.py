"""Captions and their images: who may use them, the contrastive loss, the rank of a caption's own image.

Pure functions, shared by the verbs that train encoders and those that measure them.
"""

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Blocks = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]
Part = Literal["train", "guard", "test"]
HELD_OUT_PERCENT = 5  # for each of "guard" and "test"


def part_of(image_id: str) -> Part:
    """The part that an image belongs to: 90 % train, 5 % are the guard's, 5 % test encoders.

    `image_id` is the hex SHA-256 of the image file, so the parts are random samples, and an image is in the
    same part in every collection. Images outside "train" never train, nor do their captions and preferences.
    """
    bucket = int(image_id[:8], 16) % 100
    if bucket < HELD_OUT_PERCENT:
        return "guard"
    return "test" if bucket < 2 * HELD_OUT_PERCENT else "train"


def contrastive_loss(
    image_features: Tensor, text_features: Tensor, *, temperature: float | Tensor, same: Tensor | None = None
) -> Tensor:
    """CLIP's symmetric InfoNCE over caption pairs, one loss per pair (arXiv 2103.00020, figure 3).

    Features are L2-normalised float [C, D]; row i of both is a pair, every other row a negative. `same`
    (bool [C, C]) marks rows with the same image or the same caption, which are not negatives of each other.
    Returns losses [C]; their mean is open_clip's `ClipLoss` when no two rows are the same.
    """
    similarity = image_features @ text_features.T / temperature
    if same is not None:
        others = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
        similarity = similarity.masked_fill(others, float("-inf"))
    target = torch.arange(len(similarity), device=similarity.device)
    image_to_text = functional.cross_entropy(similarity, target, reduction="none")
    text_to_image = functional.cross_entropy(similarity.T, target, reduction="none")
    return (image_to_text + text_to_image) / 2


def text_to_image_ranks(texts: np.ndarray, blocks: Blocks) -> np.ndarray:
    """Rank (1 = first) of each text's best own image among all images that are not its own, int [Q].

    `texts` float32 [Q, D]. Each call of `blocks` yields the whole gallery as (owners int [N], vectors float32
    [N, D]), where owners[i] is the text that image i belongs to, or -1. It is called twice, so that a gallery
    larger than memory can be ranked block by block. Other images rank first unless they
    are strictly farther than the best own image: ties and NaNs count against the encoder, and if all scores
    are equal the rank is the last.
    """
    best = np.full(len(texts), -np.inf, np.float32)
    # Own scores come from the same matrix product as the others: alone they could round differently.
    for owners, vectors in blocks():
        scores, own = _scores(texts, owners, vectors)
        best = np.maximum(best, np.where(own, scores, -np.inf).max(axis=1, initial=-np.inf))
    ranks = np.ones(len(texts), np.int64)
    for owners, vectors in blocks():
        scores, own = _scores(texts, owners, vectors)
        ranks += (~(scores < best[:, None]) & ~own).sum(axis=1)
    return ranks


def _scores(texts: np.ndarray, owners: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return texts @ vectors.T, owners[None, :] == np.arange(len(texts))[:, None]


def image_to_text_ranks(images: np.ndarray, owners: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Rank (1 = first) of each image's own text among all texts, int [N]: `text_to_image_ranks` reversed.

    `images` float32 [N, D], `texts` float32 [Q, D], `owners` int [N] the index of each image's own text. Ties
    and NaNs count against the encoder.
    """
    scores = images @ texts.T
    rows = np.arange(len(images))
    further = ~(scores < scores[rows, owners][:, None])
    further[rows, owners] = False
    return 1 + further.sum(axis=1)


def pair_ranks(texts: np.ndarray, images: np.ndarray) -> np.ndarray:
    """`text_to_image_ranks` where row i of both is a pair, int [N]; float32 [N, D] both."""
    return text_to_image_ranks(texts, lambda: [(np.arange(len(images)), images)])
