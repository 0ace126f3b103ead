"""Human preference of image retrieval: a query, two groups of images, votes on accuracy and on aesthetics.

A system chooses the group with the higher mean score for the query; equal means count as half an agreement.
The majority is the side with more votes. Its confidence is |a - b| / all votes, where all includes votes for
"tie"; a row with equal votes has confidence 0 and no weight. The metric is the confidence-weighted agreement
(arXiv 2406.09397, section on HPIR; the treatment of ties is our convention).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from cluster.votes.tables import (
    CRITERIA,
    Row,
    Votes,
    match_images,
    read_hpir,
    read_pairs,
    with_image_ids,
)

__all__ = ["CRITERIA", "Row", "Votes", "match_images", "read_hpir", "read_pairs", "with_image_ids"]

NUM_BINS = 5  # of the histogram of confidences


def agreement(scores: np.ndarray, votes: Sequence[Votes]) -> tuple[np.ndarray, np.ndarray]:
    """Per row: 1 if the scores agree with the majority, 0 if not, 0.5 if equal; and the confidence in [0, 1].

    `scores` float [N, 2]: mean score of group A and of group B. Both results are float [N].
    """
    chosen = np.sign(scores[:, 0] - scores[:, 1])
    majority = np.sign([v.a - v.b for v in votes])
    return 0.5 + 0.5 * chosen * majority, confidence(votes)


def confidence(votes: Sequence[Votes]) -> np.ndarray:
    """The majority's margin, |a - b| / all votes, float [N] in [0, 1]; 0 without votes."""
    a, b, tie = np.array([(v.a, v.b, v.tie) for v in votes], float).reshape(-1, 3).T
    total = a + b + tie
    return np.divide(np.abs(a - b), total, out=np.zeros_like(total), where=total > 0)


def confidence_histogram(votes: Sequence[Votes]) -> dict[str, list[float]]:
    """{"edges", "shares"}: the share of rows in each of `NUM_BINS` equal bins of the confidence.

    A bin holds its lower edge; the last holds 1 as well.
    """
    # Rounded, so that a margin of 3 to 2 votes is 0.2 and not a little less.
    counts, edges = np.histogram(np.round(confidence(votes), 9), np.linspace(0, 1, NUM_BINS + 1).round(9))
    return {"edges": edges.tolist(), "shares": (counts / max(len(votes), 1)).round(6).tolist()}


def group_means(rows: Sequence[Row], score: Mapping[tuple[str, str], float]) -> np.ndarray:
    """Mean score of both groups of each row, float [N, 2]; `score` maps (query, image_id) -> score."""
    return np.array(
        [
            [
                np.mean([score[row.query, image_id] for image_id in group])
                for group in (row.group_a, row.group_b)
            ]
            for row in rows
        ]
    ).reshape(-1, 2)
