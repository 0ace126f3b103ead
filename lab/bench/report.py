"""What every benchmark's line is made of."""

from collections.abc import Sequence
from statistics import median


def comparison(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float | list[float]]:
    """Ratio ours / theirs of paired turns: the median, the extremes, and each turn's."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return {"value": median(ratios), "min": min(ratios), "max": max(ratios), "runs": ratios}
