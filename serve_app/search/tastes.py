"""Tastes: directions in which results can be shifted, such as from darker to brighter.

A property is measured on previews of indexed images. Its direction in the encoder's space is a rank axis
(`actors.scorers.RankAxis`), fitted for each encoder, so no labels are needed.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from actors.images import UnusableImage, decode
from actors.scorers import RankAxis

MEASURED_PX = 96
REACH = 0.35
"""How far a taste of 1 moves a query vector of length 1."""


@dataclass(frozen=True)
class Property:
    """A property of pixels, float32 RGB [H, W, 3] in [0, 1], and the names of its low and high ends."""

    less: str
    more: str
    measure: Callable[[np.ndarray], float]


def _grey(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


def _colourfulness(rgb: np.ndarray) -> float:
    """Hasler and Suesstrunk 2003."""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    opponents = np.stack([red - green, (red + green) / 2 - blue]).reshape(2, -1)
    return float(np.hypot(*opponents.std(axis=1)) + 0.3 * np.hypot(*opponents.mean(axis=1)))


def _calm(rgb: np.ndarray) -> float:
    grey = _grey(rgb)
    across, down = (cv2.Sobel(grey, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
    return -float(np.hypot(across, down).mean())


PROPERTIES: Mapping[str, Property] = {
    "brightness": Property("darker", "brighter", lambda rgb: float(_grey(rgb).mean())),
    "colour": Property("paler", "more colourful", _colourfulness),
    "calm": Property("busier", "calmer", _calm),
    "sharpness": Property(
        "softer", "sharper", lambda rgb: float(cv2.Laplacian(_grey(rgb), cv2.CV_32F).var())
    ),
    "warmth": Property("cooler", "warmer", lambda rgb: float((rgb[..., 0] - rgb[..., 2]).mean())),
}


def fit(previews: Sequence[bytes], vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Name of each property -> its direction, float32 [D], normalised.

    previews: N JPEG files. vectors: float32 [N, D] of the same images. A property that is equal for all
    images is skipped, and so is an image whose preview cannot be read.
    """
    pixels, readable = [], []
    for index, jpeg in enumerate(previews):
        with contextlib.suppress(UnusableImage):
            pixels.append(np.asarray(decode(jpeg).resize((MEASURED_PX, MEASURED_PX)), np.float32) / 255)
            readable.append(index)
    vectors = vectors[readable]
    measured = {name: np.array([each.measure(rgb) for rgb in pixels]) for name, each in PROPERTIES.items()}
    return {
        name: RankAxis.fit(vectors, values).axis
        for name, values in measured.items()
        if len(values) > 1 and np.ptp(values) > 0
    }


def shift(vector: np.ndarray, axes: Mapping[str, np.ndarray], tastes: Mapping[str, float]) -> np.ndarray:
    """The query vector, float32 [D], moved by `REACH` times each taste in [-1, 1]; not normalised."""
    for name, amount in tastes.items():
        vector = vector + REACH * amount * axes[name]
    return vector
