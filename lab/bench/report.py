"""The report of a benchmark."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from lab.machine import machine

Spread = dict[str, float | list[float]]


def comparison(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """The spread of the ratios ours / theirs, turn by turn."""
    return spread([our / their for our, their in zip(ours, theirs, strict=True)])


def spread(values: Sequence[float]) -> Spread:
    """The median, the extremes and all values, one for each turn."""
    return {"value": median(values), "min": min(values), "max": max(values), "runs": list(values)}


def report(bench: str, ratios: Mapping[str, Spread], figures: Mapping[str, Any]) -> dict[str, Any]:
    """What a benchmark prints: its ratios, other figures, and the machine they were measured on."""
    return {"bench": bench, "ratios": dict(ratios), "figures": dict(figures), "machine": machine()}
