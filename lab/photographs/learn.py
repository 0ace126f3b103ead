"""Photographs as features, and an encoder aligned with people's votes on them by DPO. Plain torch: no Ray.

Features are colour and edge statistics, or the statistics of an encoder's frozen stages. No weight is written
to a disk. Shapes: N photographs, P pairs, D dimensions.
"""

import copy
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from actors.encoder import Encoder
from lab.photographs.votes import Fold, Panel

HAND_PX = 96
ENCODE_BATCH = 64


def hand_features(image: Image.Image) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour [19], hues [12] and edges [14] of an RGB image, squashed to `HAND_PX` pixels a side; float.

    Colour: means and deviations of Lab, saturation and value, colourfulness (Hasler and Suesstrunk 2003),
    percentiles of lightness and saturation. Hues: a histogram weighted by saturation x value. Edges: strength
    of the gradient and of the Laplacian, and a histogram of directions.
    """
    pixels = np.asarray(image.resize((HAND_PX, HAND_PX), Image.Resampling.BICUBIC), np.uint8)
    rgb = pixels.astype(np.float32) / 255
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).reshape(-1, 3) / 100
    hue, saturation, value = (cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV).reshape(-1, 3) / (360, 1, 1)).T
    red, green, blue = rgb.reshape(-1, 3).T
    opponents = np.stack([red - green, (red + green) / 2 - blue])
    colour = [
        *lab.mean(0), *lab.std(0), saturation.mean(), value.mean(), saturation.std(), value.std(),
        np.hypot(*opponents.std(1)) + 0.3 * np.hypot(*opponents.mean(1)),
        *np.percentile(grey, [5, 25, 50, 75, 95]), *np.percentile(saturation, [10, 50, 90]),
    ]  # fmt: skip
    hues = np.histogram(hue, 12, (0, 1), weights=saturation * value)[0] / len(hue)
    across, down = (cv2.Sobel(grey, cv2.CV_32F, dx, 1 - dx) / 4 for dx in (1, 0))
    strength = np.hypot(across, down)
    turns = np.histogram(np.arctan2(down, across) % np.pi, 8, (0, np.pi), weights=strength)[0]
    laplacian = np.log(cv2.Laplacian(grey, cv2.CV_32F).var() + 1e-6)
    edges = [
        strength.mean(), strength.std(), laplacian, *np.percentile(strength, [50, 90, 99]),
        *(turns / (turns.sum() + 1e-6)),
    ]  # fmt: skip
    return np.array(colour), hues, np.array(edges)


def encode(encoder: Encoder, pixels: np.ndarray) -> np.ndarray:
    """uint8 [N, 3, H, W] -> L2-normalised float32 [N, D]."""
    starts = range(0, len(pixels), ENCODE_BATCH)
    return np.concatenate([encoder.encode_images(pixels[i : i + ENCODE_BATCH]) for i in starts])


def stage_features(encoder: Encoder, pixels: np.ndarray) -> list[np.ndarray]:
    """Mean and deviation over the picture of every channel, one float32 [N, D] per stage and statistic.

    `pixels` uint8 [N, 3, H, W]; each picture is averaged with its mirror image. Stages are those that timm
    names in `feature_info`; a tower without stages that give maps has its vectors alone.
    """
    trunk = getattr(encoder.model.visual, "trunk", None)
    names = [stage["module"] for stage in getattr(trunk, "feature_info", [])]
    maps: list[Tensor] = []
    hooks = [
        trunk.get_submodule(name).register_forward_hook(lambda _, __, out: maps.append(out)) for name in names
    ]
    batches = []
    for start in range(0, len(pixels), ENCODE_BATCH):
        sides = []
        for batch in (pixels[start : start + ENCODE_BATCH], pixels[start : start + ENCODE_BATCH, ..., ::-1]):
            maps.clear()
            vectors = encoder.encode_images(np.ascontiguousarray(batch))
            grids = [grid.float() for grid in maps if grid.ndim == 4]
            statistics = [
                f(grid, dim=(2, 3)).cpu().numpy() for grid in grids for f in (torch.mean, torch.std)
            ]
            sides.append(statistics or [vectors])
        batches.append([(left + right) / 2 for left, right in zip(*sides, strict=True)])
    for hook in hooks:
        hook.remove()
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


@dataclass(frozen=True)
class Recipe:
    """How the encoder is aligned with the votes."""

    num_steps: int = 48  # optimiser steps at most
    check_every: int = 8  # steps between two looks at the photographs kept for stopping
    photographs_per_step: int = 40  # every pair among them takes part
    learning_rate: float = 2e-4  # AdamW's
    beta: float = 1.0
    stop_share: float = 0.25  # of the photographs learned from: they only say when to stop, in [0, 1)
    smallest_crop: float = 0.7  # of a photograph's side, in (0, 1]


def preference_loss(policy: Tensor, reference: Tensor, p_first: Tensor, *, beta: float) -> Tensor:
    """DPO with soft labels, one loss a pair, float [B] (arXiv 2305.18290, eq. 7, in its two-sided form).

    `policy` and `reference` float [B, 2] are scores of both sides over tau, `p_first` [B] in [0, 1] the
    probability that the first is better. The cross-entropy of sigmoid(beta * margin) with p is
    -p log sigmoid(beta * margin) - (1 - p) log sigmoid(-beta * margin).
    """
    gained = policy - reference.detach()
    margin = gained[:, 0] - gained[:, 1]
    return functional.binary_cross_entropy_with_logits(beta * margin, p_first, reduction="none")


def align(
    encoder: Encoder, pixels: np.ndarray, panel: Panel, fold: Fold, *, mode: str, recipe: Recipe, seed: int
) -> np.ndarray:
    """Cosine of every pair's query with both its photographs after alignment, float [P, 2].

    The preferences are the votes on pairs of the fold's own photographs, for each pair's query; `pixels`
    uint8 [N, 3, H, W]. Mode `both` moves both towers on randomly cropped and mirrored photographs, `text` the
    text tower alone on stored vectors. What is kept is the step with the lowest loss on pairs of photographs
    set aside, the untouched encoder included. `encoder` stays as it is.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(fold.learn)
    num_stop = round(recipe.stop_share * len(shuffled))
    stop, learn = shuffled[:num_stop], shuffled[num_stop:]
    # Half the time of float32 where the machine knows bfloat16; the figures come from float32.
    policy, reference = (_copy(encoder, "bf16") for _ in range(2))
    stored = encode(encoder, pixels)
    optimizer = torch.optim.AdamW(_learning(policy.model, mode), lr=recipe.learning_rate, weight_decay=0.0)
    before = query_scores(encoder, stored, panel)
    best_loss, best_scores = _held_loss(before, before, panel, stop, encoder.temperature, recipe), before
    for step in range(1, recipe.num_steps + 1):
        drawn = rng.choice(learn, min(recipe.photographs_per_step, len(learn)), replace=False)
        batch = torch.from_numpy(stored[drawn] if mode == "text" else pixels[drawn])
        images = batch if mode == "text" else cropped(batch, recipe.smallest_crop, rng)
        loss = _step_loss(policy, reference, images, panel, drawn, recipe)
        if loss is None:
            continue
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % recipe.check_every == 0 or step == recipe.num_steps:
            now = _copy(policy, encoder.precision)
            after = query_scores(now, stored if mode == "text" else encode(now, pixels), panel)
            held = _held_loss(after, before, panel, stop, encoder.temperature, recipe)
            if held < best_loss:
                best_loss, best_scores = held, after
    return best_scores


def cropped(pixels: Tensor, smallest: float, rng: np.random.Generator) -> Tensor:
    """Each image cropped to a random square of `smallest` to 1 of its side, half of them mirrored.

    uint8 [B, 3, H, W] -> float32 of the same shape and range. Colours stay: they are what people see first.
    """
    scale = rng.uniform(smallest, 1, len(pixels))
    mirror = rng.choice([-1.0, 1.0], len(pixels))
    theta = np.zeros((len(pixels), 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 1, 1] = scale * mirror, scale
    theta[:, :, 2] = rng.uniform(-1, 1, (len(pixels), 2)) * (1 - scale)[:, None]
    grid = functional.affine_grid(torch.from_numpy(theta), list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False)


def _copy(encoder: Encoder, precision: str) -> Encoder:
    model = copy.deepcopy(encoder.model)
    return Encoder(model, encoder.tokenizer, encoder.config, precision=precision, device=encoder.device)


def _learning(model: nn.Module, mode: str) -> list[nn.Parameter]:
    """The parameters that learn: the temperature never, the image tower only in mode `both`."""
    named = dict(model.named_parameters())
    fixed = {
        name for name in named if name.startswith("logit_") or (mode == "text" and name.startswith("visual."))
    }
    for name, parameter in named.items():
        parameter.requires_grad_(name not in fixed)
    return [parameter for name, parameter in named.items() if name not in fixed]


def _step_loss(
    policy: Encoder, reference: Encoder, images: Tensor, panel: Panel, drawn: np.ndarray, recipe: Recipe
) -> Tensor | None:
    """Mean loss of all pairs among the drawn photographs; None where nobody voted on any of them.

    `images` are pixels [B, 3, H, W], or vectors [B, D] that do not learn.
    """
    pairs, p_first = _votes_among(panel, drawn)
    if not len(pairs):
        return None
    place = {int(row): i for i, row in enumerate(drawn)}
    sides = torch.tensor([[place[int(row)] for row in panel.sides[pair]] for pair in pairs])
    names, query = np.unique(panel.queries[pairs], return_inverse=True)
    tokens = policy.tokenize(names.tolist())
    with torch.no_grad():
        before = _scores(reference, images, tokens)
    after = _scores(policy, images, tokens)
    query = torch.from_numpy(query)[:, None]
    p_first = torch.from_numpy(p_first).to(after.device)
    return preference_loss(after[query, sides], before[query, sides], p_first, beta=recipe.beta).mean()


def _scores(encoder: Encoder, images: Tensor, tokens: Tensor) -> Tensor:
    """Cosine over tau of each text with each image, [T, B]."""
    vectors = images.to(encoder.device) if images.ndim == 2 else encoder.image_features(images)
    return encoder.text_features(tokens) @ vectors.T / encoder.temperature


def _votes_among(panel: Panel, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs whose photographs are both in `rows`, and the share of votes for A, float32 in [0, 1]."""
    for_a, for_b = np.array([(vote.a, vote.b) for vote in panel.votes], np.float32).T
    pairs = np.flatnonzero(np.isin(panel.sides, rows).all(axis=1) & (for_a + for_b > 0))
    return pairs, for_a[pairs] / (for_a + for_b)[pairs]


def query_scores(encoder: Encoder, vectors: np.ndarray, panel: Panel) -> np.ndarray:
    """Cosine of each pair's query with both its photographs, float [P, 2]; `vectors` float32 [N, D]."""
    names, query = np.unique(panel.queries, return_inverse=True)
    texts = encoder.encode_texts(names.tolist())[query]
    return np.einsum("pd,psd->ps", texts, vectors[panel.sides])


def _held_loss(
    after: np.ndarray, before: np.ndarray, panel: Panel, rows: np.ndarray, temperature: float, recipe: Recipe
) -> float:
    """Mean loss of the pairs among `rows`, given cosines [P, 2]; infinite where there are none."""
    pairs, p_first = _votes_among(panel, rows)
    if not len(pairs):
        return float("inf")
    scores = (torch.from_numpy(cosines[pairs] / temperature).float() for cosines in (after, before))
    return float(preference_loss(*scores, torch.from_numpy(p_first), beta=recipe.beta).mean())
