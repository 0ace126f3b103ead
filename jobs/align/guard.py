"""The guard: limits the recall that an alignment may cost, measured on held-out captions.

Each caption of the guard set searches for its own image among the images of the set, and each image for its
own caption. Such a small gallery is easy: the guard detects training that damages the encoder, but does not
measure how good the encoder is. After training it measures the weights between the reference (alpha = 0) and
the end of training (alpha = 1), and the largest alpha within the limit makes the encoder (WiSE-FT, arXiv
2109.01903).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from actors.caption_pairs import pair_ranks, part_of
from actors.encoder import Encoder
from cluster import terminal
from cluster.errors import UserError
from cluster.profile import Guard
from cluster.tables import first_rows
from jobs.align.batches import GUARD_STREAM, strings

# recall@10 alone misses most damage in a small gallery, where it stays near 1.
RECALLS = {"recall@1": 1, "recall@10": 10}
ALPHAS = tuple(step / 20 for step in range(21))  # 0 is the reference
MIN_CAPTIONS = 32  # with fewer, one caption would count for more than three points of recall
MIN_PAIRS_PER_CAPTION = 4  # a small collection gives at most a quarter of its captions to the guard
ROUNDING = 1e-9  # 0.9 - 0.87 is more than 0.03 in floating point
BATCH_SIZE = 64  # images in one forward pass

Curve = list[dict[str, float]]  # for each of ALPHAS: `alpha` and each of RECALLS


@dataclass(frozen=True)
class CaptionPairs:
    """Caption pairs (`image_id`, `caption`): those that L_pt trains on, and those of the guard set."""

    training: pa.Table
    held_out: pa.Table


@dataclass(frozen=True)
class GuardSet:
    """The held-out captions on which recall is measured; may be empty."""

    captions: list[str]
    rows: np.ndarray  # int32 [N], the captions' images as rows of `Corpus.image_ids`


def hold_out(pairs: pa.Table, num_captions: int, seed: int) -> CaptionPairs:
    """Split (`image_id`, `caption`) rows into training pairs and a guard set of at most `num_captions` pairs.

    Images of the parts "guard" and "test" do not train. The guard set has images of the part "guard", each
    once, with its longest (most specific) caption, and each caption once. If a small collection has fewer
    than 32 of these pairs, images that would have trained fill up the guard set to a quarter of all pairs. It
    is empty if even that is fewer than 32. Training pairs share no image and no caption with it. The result
    does not depend on the order of the rows.
    """
    parts = np.array([part_of(image_id) for image_id in strings(pairs["image_id"])], str)
    own = _distinct(pairs.filter(pa.array(parts == "guard")))
    size = own.num_rows
    if size < MIN_CAPTIONS:
        own = _distinct(pairs.filter(pa.array(parts != "test")))
        size = own.num_rows // MIN_PAIRS_PER_CAPTION
    size = min(num_captions, size)
    training = pairs.filter(pa.array(parts == "train"))
    if size < MIN_CAPTIONS:
        return CaptionPairs(training, pairs.slice(0, 0))
    filling = np.array([part_of(image_id) != "guard" for image_id in strings(own["image_id"])])
    rng = np.random.default_rng([seed, GUARD_STREAM])
    held_out = own.take(np.sort(np.lexsort((rng.random(own.num_rows), filling))[:size]))
    image, caption = (
        pc.is_in(training[name], value_set=held_out[name].combine_chunks())
        for name in ("image_id", "caption")
    )
    return CaptionPairs(training.filter(pc.invert(pc.or_(image, caption))), held_out)


def _distinct(pairs: pa.Table) -> pa.Table:
    """Each image once, with its longest caption, and each caption once; sorted."""
    by_length = pairs.append_column("length", pc.utf8_length(pairs["caption"])).sort_by(
        [("image_id", "ascending"), ("length", "descending"), ("caption", "ascending")]
    )
    return first_rows(first_rows(by_length, ["image_id"]), ["caption"]).drop_columns("length")


def recalls(texts: np.ndarray, images: np.ndarray) -> dict[str, float]:
    """For each of RECALLS, the share of texts and images that find their partner, in [0, 1].

    `texts` and `images` float32 [N, D], N >= 1; row i of both is a pair. Both directions count alike, which
    halves the noise of a small set. Ties and NaNs count against the encoder, as in `text_to_image_ranks`.
    """
    ranks = np.concatenate([pair_ranks(texts, images), pair_ranks(images, texts)])
    return {name: float((ranks <= k).mean()) for name, k in RECALLS.items()}


def guard_recalls(
    encoder: Encoder, guard: GuardSet, take: Callable[[np.ndarray], np.ndarray]
) -> dict[str, float]:
    """`recalls` of the guard set; `take` is `Images.take`, which gives pixels, or vectors in mode `text`."""
    vectors = []
    for start in range(0, len(guard.rows), BATCH_SIZE):
        images = take(guard.rows[start : start + BATCH_SIZE])
        vectors.append(images if images.ndim == 2 else encoder.encode_images(images))
    return recalls(encoder.encode_texts(guard.captions), np.concatenate(vectors))


def alpha_curve(
    reference: Encoder,
    learned: Mapping[str, Tensor],
    guard: GuardSet,
    take: Callable[[np.ndarray], np.ndarray],
) -> Curve:
    """The guard's recall at each of ALPHAS. Changes the weights of `reference`, at first theta_ref."""
    weights = reference.model.state_dict()
    start = {name: weights[name].clone() for name in learned}
    curve = []
    for alpha in ALPHAS:
        interpolate(reference.model, start, learned, alpha)
        curve.append({"alpha": alpha, **guard_recalls(reference, guard, take)})
    return curve


def interpolate(
    model: nn.Module, start: Mapping[str, Tensor], learned: Mapping[str, Tensor], alpha: float
) -> None:
    """Set the weights of `model` that were learned to (1 - alpha) start + alpha learned."""
    weights = model.state_dict()
    with torch.no_grad():
        for name, value in learned.items():
            weights[name].copy_(start[name].lerp(value.to(start[name]), alpha))


def at(curve: Curve, alpha: float) -> dict[str, float]:
    """Each of RECALLS at `alpha`, interpolated between two steps of the curve."""
    steps = [point["alpha"] for point in curve]
    return {name: float(np.interp(alpha, steps, [point[name] for point in curve])) for name in RECALLS}


def recall_drop(curve: Curve, alpha: float) -> float:
    """The larger of the losses of recall@1 and recall@10 at `alpha`; negative if both rise."""
    after = at(curve, alpha)
    return max(curve[0][name] - after[name] for name in RECALLS)


def largest_alpha(curve: Curve, max_drop: float) -> float:
    """The largest step that, like all smaller ones, loses at most `max_drop`; else the smallest step."""
    within = [recall_drop(curve, alpha) <= max_drop + ROUNDING for alpha in ALPHAS]
    return ALPHAS[max(1, within.index(False) - 1)] if False in within else ALPHAS[-1]


def outcome(curve: Curve, guard: Guard, *, num_captions: int, num_epochs: int) -> dict[str, Any]:
    """Choose alpha, and say it. Returns the guard's part of the report; recalls not measured are None.

    `curve` is empty if there is no guard set; `auto` then keeps the weights as trained. `num_captions` is the
    size of the guard set. Raises UserError when the smallest step, or the alpha that the profile sets, loses
    more than `guard.max_recall_drop`.
    """
    alpha = guard.wise_ft_alpha
    if alpha == "auto":
        alpha = largest_alpha(curve, guard.max_recall_drop) if curve else 1.0
    before, after = (curve[0], at(curve, alpha)) if curve else ({}, {})
    drop = recall_drop(curve, alpha) if curve else None
    if drop is not None and drop > guard.max_recall_drop + ROUNDING:
        name = max(RECALLS, key=lambda name: before[name] - after[name])
        auto = "" if guard.wise_ft_alpha == "auto" else "guard.wise_ft_alpha to auto, "
        fewer = "fewer align.epochs, " if num_epochs > 1 else ""
        raise UserError(
            f"Training cost {drop:.3f} of {name} on {num_captions} held-out captions ({before[name]:.3f} "
            f"before, {after[name]:.3f} after, at a WiSE-FT alpha of {alpha:g}), and guard.max_recall_drop "
            f"allows {guard.max_recall_drop:g}, so no encoder is registered: set {auto}a smaller "
            f"align.learning_rate, {fewer}a larger align.pretrain_weight, or a larger guard.max_recall_drop."
        )
    changes = [f"{name} {before[name]:.3f} to {after[name]:.3f}" for name in before if name in RECALLS]
    terminal.say(f"align: alpha {alpha:g} of WiSE-FT: {', '.join(changes) or 'recall is not measured'}")
    return {
        "wise_ft_alpha": alpha,
        "alpha_curve": curve,
        "num_guard_captions": num_captions,
        "recall_drop": drop,
        **{name: {"before": before.get(name), "after": after.get(name)} for name in RECALLS},
    }
