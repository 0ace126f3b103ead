"""Photographs as features: colour and edge statistics, and statistics of an encoder's frozen stages.

Shapes: N photographs, D dimensions.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from actors import images
from actors.encoder import Encoder
from cluster.errors import UserError
from lab.photographs.dataset import RatedPhotographs

STATISTICS_PX = 96
ENCODE_BATCH = 64


def colour_and_edge_features(image: Image.Image) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour [19], hue [12] and edge [14] statistics of an RGB image, resized to a square; float.

    Colour: means and deviations of Lab, saturation and value, colourfulness (Hasler and Suesstrunk 2003),
    percentiles of lightness and saturation. Hue: a histogram weighted by saturation x value. Edges: strength
    of the gradient and of the Laplacian, and a histogram of gradient directions.
    """
    pixels = np.asarray(image.resize((STATISTICS_PX, STATISTICS_PX), Image.Resampling.BICUBIC), np.uint8)
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
    directions = np.histogram(np.arctan2(down, across) % np.pi, 8, (0, np.pi), weights=strength)[0]
    laplacian = np.log(cv2.Laplacian(grey, cv2.CV_32F).var() + 1e-6)
    edges = [
        strength.mean(), strength.std(), laplacian, *np.percentile(strength, [50, 90, 99]),
        *(directions / (directions.sum() + 1e-6)),
    ]  # fmt: skip
    return np.array(colour), hues, np.array(edges)


def encode(encoder: Encoder, pixels: np.ndarray) -> np.ndarray:
    """uint8 [N, 3, H, W] -> L2-normalised float32 [N, D]."""
    starts = range(0, len(pixels), ENCODE_BATCH)
    return np.concatenate([encoder.encode_images(pixels[i : i + ENCODE_BATCH]) for i in starts])


def stage_features(encoder: Encoder, pixels: np.ndarray) -> list[np.ndarray]:
    """Spatial mean and deviation of every channel, one float32 [N, D] for each stage and statistic.

    `pixels` uint8 [N, 3, H, W]; the statistics of a photograph are averaged with those of its mirror image.
    Stages are the modules that timm lists in `feature_info`. A tower without such stages, or whose stages do
    not return feature maps, is represented by its vectors.
    """
    trunk: Any = getattr(encoder.model.visual, "trunk", None)
    names = [stage["module"] for stage in getattr(trunk, "feature_info", [])]
    maps: list[Tensor] = []
    hooks = [
        trunk.get_submodule(name).register_forward_hook(lambda _, __, output: maps.append(output))
        for name in names
    ]
    batches = []
    for start in range(0, len(pixels), ENCODE_BATCH):
        batch = pixels[start : start + ENCODE_BATCH]
        both = [_stage_statistics(encoder, side, maps) for side in (batch, batch[..., ::-1])]
        batches.append([(plain + mirrored) / 2 for plain, mirrored in zip(*both, strict=True)])
    for hook in hooks:
        hook.remove()
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def _stage_statistics(encoder: Encoder, pixels: np.ndarray, maps: list[Tensor]) -> list[np.ndarray]:
    """Statistics of the feature maps that the hooks append to `maps` while the encoder runs."""
    maps.clear()
    vectors = encoder.encode_images(np.ascontiguousarray(pixels))
    grids = [grid.float() for grid in maps if grid.ndim == 4]
    statistics = [
        reduce(grid, dim=(2, 3)).cpu().numpy() for grid in grids for reduce in (torch.mean, torch.std)
    ]
    return statistics or [vectors]


class Features(NamedTuple):
    """What the methods see of N photographs."""

    statistics: list[np.ndarray]  # colour, hue and edge statistics, float [N, D] each
    stages: list[np.ndarray]  # of the whole photograph, float [N, D] each
    pixels: np.ndarray  # as the encoder takes them, uint8 [N, 3, H, W]
    vectors: np.ndarray  # float32 [N, D], L2-normalised


def all_features(encoder: Encoder, rated: RatedPhotographs) -> Features:
    """Decode every photograph and compute its features. Raises UserError for one that cannot be read."""
    # The encoder's own centre crop would hide what is near the edges.
    uncropped = replace(encoder.fit, resize_mode="squash")
    photographs = [decoded(rated.folder / name) for name in rated.files]
    statistics = zip(*map(colour_and_edge_features, photographs), strict=True)
    pixels = np.stack([encoder.pixels(photograph) for photograph in photographs])
    squashed = np.stack([images.pixels(photograph, uncropped) for photograph in photographs])
    return Features(
        statistics=[np.stack(block) for block in statistics],
        stages=stage_features(encoder, squashed),
        pixels=pixels,
        vectors=encode(encoder, pixels),
    )


def decoded(path: Path) -> Image.Image:
    """The photograph as an RGB image. Raises UserError when it is missing or cannot be decoded."""
    try:
        return images.decode(images.read_uri(str(path)))
    except images.UnusableImage as error:
        raise UserError(f"photograph {str(path)!r} {error}") from error
