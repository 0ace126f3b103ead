"""Watches ordinary retrieval while an encoder is aligned: recall@10 on caption pairs held out of training.

Each caption of the guard set asks for its own image among the set's images. So small a gallery is easy: this
is an alarm for an encoder that training ruins, and no measure of the encoder that it makes. Recall is that of
the weights as trained (alpha = 1); WiSE-FT, which pulls them back towards the reference, comes after it.

Pure functions over Arrow tables and numpy arrays: no Ray, no model.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.caption_pairs import pair_ranks
from cluster.errors import UserError

RECALL = "recall@10"  # the name of the metric
NUM_RESULTS = 10
MIN_CAPTIONS = 32  # with fewer, one caption is more than three points of recall
PAIRS_A_CAPTION = 4  # at most one caption in so many is held out
STREAM = 2  # of the seeded generator, beside those of `batches`
ROUNDING = 1e-9  # 0.9 - 0.87 is more than 0.03 in floating point


@dataclass(frozen=True)
class CaptionPairs:
    """Caption pairs (`image_id`, `caption`): those that L_pt learns from, and those held out as guard set."""

    learned: pa.Table
    held_out: pa.Table


@dataclass(frozen=True)
class GuardSet:
    """What is measured before training and after every epoch; without captions nothing is."""

    captions: list[str]
    rows: np.ndarray  # int32 [N], the captions' images as rows of `Corpus.image_ids`
    max_drop: float  # recall@10 that training may cost, 0 to 1


def draw(pairs: pa.Table, num_captions: int, seed: int) -> CaptionPairs:
    """Hold `num_captions` pairs out of (`image_id`, `caption`) rows; the order of the rows does not matter.

    The guard set names each image once, with its longest caption, which tells most about it, and each caption
    once. Where it would take more than a quarter of such pairs it gets a quarter; below 32 it gets none. No
    pair with an image or a caption of the guard set is left to learn from.
    """
    by_length = pairs.append_column("length", pc.utf8_length(pairs["caption"])).sort_by(
        [("image_id", "ascending"), ("length", "descending"), ("caption", "ascending")]
    )
    distinct = _first_of_each(_first_of_each(by_length, "image_id"), "caption").drop_columns("length")
    size = min(num_captions, distinct.num_rows // PAIRS_A_CAPTION)
    if size < MIN_CAPTIONS:
        return CaptionPairs(pairs, pairs.slice(0, 0))
    kept = np.random.default_rng([seed, STREAM]).permutation(distinct.num_rows)[:size]
    held_out = distinct.take(np.sort(kept))
    image, caption = (
        pc.is_in(pairs[name], value_set=held_out[name].combine_chunks()) for name in ("image_id", "caption")
    )
    return CaptionPairs(pairs.filter(pc.invert(pc.or_(image, caption))), held_out)


def _first_of_each(rows: pa.Table, name: str) -> pa.Table:
    """The first row of each value of the column, in the order given."""
    numbered = rows.append_column("row", pa.array(np.arange(rows.num_rows)))
    first = numbered.group_by(name).aggregate([("row", "min")])["row_min"]
    return rows.take(np.sort(first.to_numpy()))


def recall_at_10(texts: np.ndarray, images: np.ndarray) -> float:
    """Share of texts whose own image is among the ten nearest, 0 to 1; float32 [N, D] both, N >= 1.

    Row i of both is a pair; ties and NaNs count against the encoder: see `text_to_image_ranks`.
    """
    return float((pair_ranks(texts, images) <= NUM_RESULTS).mean())


def exceeds(before: float, after: float, max_drop: float) -> bool:
    """Whether recall fell from `before` to `after` by more than `max_drop`, all in [0, 1]."""
    return before - after > max_drop + ROUNDING


def outcome(state: dict[str, Any], *, num_captions: int, max_drop: float, num_epochs: int) -> dict[str, Any]:
    """What the guard says of a finished run of at most `num_epochs`: which epoch is kept, and recall@10.

    `state` is that of `Learner`, `num_captions` the size of the guard set. Recall before training and after
    the epoch that is kept is that of the weights as trained, whatever alpha is applied to them later; it is
    None without a guard set. Raises UserError when no epoch stayed within `max_drop`.
    """
    before, epochs = state["recall_before"], state["epochs"]
    kept_epoch = len(epochs) - state["over_limit"]
    if not kept_epoch:
        after = epochs[0][RECALL]
        fewer = "fewer align.epochs, " if num_epochs > 1 else ""
        # A smaller alpha alone would be no way out, since recall is measured without it.
        raise UserError(
            f"The first epoch cost {before - after:.3f} of {RECALL} on {num_captions} held-out captions "
            f"({before:.3f} before, {after:.3f} after) where guard.max_recall_drop allows {max_drop:g}, so "
            f"nothing is registered: set a smaller align.learning_rate, {fewer}a larger "
            "align.pretrain_weight, or a larger guard.max_recall_drop with a smaller guard.wise_ft_alpha."
        )
    return {
        "kept_epoch": kept_epoch,
        "stopped_early": len(epochs) < num_epochs,
        "num_guard_captions": num_captions,
        RECALL: {"before": before, "after": epochs[kept_epoch - 1].get(RECALL)},
    }
