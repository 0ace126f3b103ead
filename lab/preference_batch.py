"""A batch for the `Learner` of `kallos align` when it runs in this process, without Ray Train."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def preference_batch(
    images: np.ndarray,
    texts: Sequence[str],
    *,
    query: np.ndarray,
    winner: np.ndarray,
    loser: np.ndarray,
    p_winner: np.ndarray,
    reference_scores: np.ndarray,
) -> dict[str, Any]:
    """A batch of `Learner.step` without caption pairs, in which every pair weighs the same.

    `images` [N, ...] are pixels or vectors, as the learner's mode needs them. Each pair has a row of `texts`,
    `query`, and two rows of `images`, `winner` and `loser`: int64 [P]. `p_winner` float32 [P] in [0, 1].
    `reference_scores` float32 [N, T]: the reference's cosines of every image and text, divided by tau.
    """
    no_captions = np.zeros(0, np.int64)
    return {
        "images": images,
        "texts": list(texts),
        "pair_query": query,
        "pair_winner": winner,
        "pair_loser": loser,
        "p_winner": p_winner,
        "winner_reference": reference_scores[winner, query],
        "loser_reference": reference_scores[loser, query],
        "pair_weight": np.full(len(query), 1 / len(query), np.float32),
        "caption_image": no_captions,
        "caption_text": no_captions,
    }
