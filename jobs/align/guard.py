"""The guard: watches recall@10 on held-out captions while an encoder is aligned.

Each caption of the guard set is a query for its own image among the images of the set. Such a small gallery
is easy: the guard detects training that damages the encoder, but does not measure how good the encoder is.
Recall is measured on the weights as trained (alpha = 1), before WiSE-FT interpolates them with the reference.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.caption_pairs import pair_ranks
from cluster.errors import UserError
from cluster.tables import first_rows
from jobs.align.batches import GUARD_STREAM

RECALL = "recall@10"
NUM_RESULTS = 10
MIN_CAPTIONS = 32  # with fewer, one caption would count for more than three points of recall
MIN_PAIRS_PER_CAPTION = 4  # at most a quarter of the pairs are held out
ROUNDING = 1e-9  # 0.9 - 0.87 is more than 0.03 in floating point


@dataclass(frozen=True)
class CaptionPairs:
    """Caption pairs (`image_id`, `caption`): those that L_pt trains on, and those of the guard set."""

    training: pa.Table
    held_out: pa.Table


@dataclass(frozen=True)
class GuardSet:
    """The held-out captions that are measured before training and after every epoch; may be empty."""

    captions: list[str]
    rows: np.ndarray  # int32 [N], the captions' images as rows of `Corpus.image_ids`
    max_drop: float  # largest loss of recall@10 that training may cause, in [0, 1]


def hold_out(pairs: pa.Table, num_captions: int, seed: int) -> CaptionPairs:
    """Split (`image_id`, `caption`) rows into training pairs and a guard set of `num_captions` pairs.

    The guard set has each image once, with its longest (most specific) caption, and each caption once. It
    holds at most a quarter of these distinct pairs, and is empty if that would be fewer than 32. Training
    pairs share no image and no caption with it. The result does not depend on the order of the rows.
    """
    by_length = pairs.append_column("length", pc.utf8_length(pairs["caption"])).sort_by(
        [("image_id", "ascending"), ("length", "descending"), ("caption", "ascending")]
    )
    distinct = first_rows(first_rows(by_length, ["image_id"]), ["caption"]).drop_columns("length")
    size = min(num_captions, distinct.num_rows // MIN_PAIRS_PER_CAPTION)
    if size < MIN_CAPTIONS:
        return CaptionPairs(pairs, pairs.slice(0, 0))
    drawn = np.random.default_rng([seed, GUARD_STREAM]).permutation(distinct.num_rows)[:size]
    held_out = distinct.take(np.sort(drawn))
    image, caption = (
        pc.is_in(pairs[name], value_set=held_out[name].combine_chunks()) for name in ("image_id", "caption")
    )
    return CaptionPairs(pairs.filter(pc.invert(pc.or_(image, caption))), held_out)


def recall_at_10(texts: np.ndarray, images: np.ndarray) -> float:
    """Share of texts whose own image is among the ten nearest, in [0, 1]; float32 [N, D] both, N >= 1.

    Row i of both is a pair. Ties and NaNs count against the encoder, as in `text_to_image_ranks`.
    """
    return float((pair_ranks(texts, images) <= NUM_RESULTS).mean())


def exceeds(before: float, after: float, max_drop: float) -> bool:
    """Whether recall fell from `before` to `after` by more than `max_drop`, all in [0, 1]."""
    return before - after > max_drop + ROUNDING


def outcome(state: dict[str, Any], *, num_captions: int, max_drop: float, num_epochs: int) -> dict[str, Any]:
    """The guard's part of the report: the kept epoch, and recall@10 before and after (None if not measured).

    `state` is a result of `Learner.state`, `num_epochs` the number of epochs that were requested.
    Raises UserError when no epoch stayed within `max_drop`.
    """
    before, epochs = state["recall_before"], state["epochs"]
    kept_epoch = len(epochs) - state["over_limit"]
    if not kept_epoch:
        after = epochs[0][RECALL]
        fewer = "fewer align.epochs, " if num_epochs > 1 else ""
        # A smaller alpha alone does not help: recall is measured before WiSE-FT.
        raise UserError(
            f"The first epoch cost {before - after:.3f} of {RECALL} on {num_captions} held-out captions "
            f"({before:.3f} before, {after:.3f} after), and guard.max_recall_drop allows {max_drop:g}, so no "
            f"encoder is registered: set a smaller align.learning_rate, {fewer}a larger "
            "align.pretrain_weight, or a larger guard.max_recall_drop with a smaller guard.wise_ft_alpha."
        )
    return {
        "kept_epoch": kept_epoch,
        "stopped_early": len(epochs) < num_epochs,
        "num_guard_captions": num_captions,
        RECALL: {"before": before, "after": epochs[kept_epoch - 1].get(RECALL)},
    }
