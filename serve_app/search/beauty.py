"""From literal to beautiful: a query vector moves along an axis of its encoder's space, without any training.

`kallos align` fits the axis, and a constant suffix for every query, in the space of the parent encoder: see
`actors.nulls`. Without it, the axis leads from the bad to the good words of `actors.scorers.PROMPT_PAIRS`,
which exist for every encoder.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from actors.nulls.axis import Axis
from actors.scorers import PROMPT_PAIRS

SUFFIX, AXIS, REPHRASE = "suffix", "axis", "rephrase"
PROMPT_STRENGTH = 0.3
"""How far a beauty of 1 moves a query vector of length 1 along the axis of the prompts: a guess of ours."""


@dataclass(frozen=True)
class Nulls:
    """What `kallos align` fitted for the parent of an encoder."""

    suffix: str
    axis: Axis


def prompt_axis(encode_texts: Callable[[Sequence[str]], np.ndarray]) -> Axis:
    """The axis of the prompts: the mean of good minus bad text vectors, normalised."""
    good, bad = zip(*PROMPT_PAIRS, strict=True)
    direction = (encode_texts(list(good)) - encode_texts(list(bad))).mean(axis=0)
    length = max(float(np.linalg.norm(direction)), 1e-12)
    return Axis((direction / length).astype(np.float32), PROMPT_STRENGTH)


def fitted_nulls(metrics: Mapping[str, Any]) -> Nulls | None:
    """The nulls in the metrics of an encoder, None if it has none."""
    fitted = metrics.get("align", {}).get("nulls")
    if not fitted:
        return None
    return Nulls(fitted["suffix"], Axis(np.asarray(fitted["axis"], np.float32), fitted["strength"]))


def shift(vector: np.ndarray, axis: Axis, beauty: float) -> np.ndarray:
    """normalise(q + beauty * strength * direction) for a query vector q of length 1, float32 [D]."""
    return replace(axis, strength=beauty * axis.strength).apply(vector[None])[0]
