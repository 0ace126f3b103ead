"""Which systems a report compares, and with which."""

from collections.abc import Collection, Mapping

from jobs.evaluate.figures.registry import SYSTEM_TITLES

NULLS = ("suffix", "axis")  # rivals without training that the labels choose: the better one is the best null
COMPARED = ("teacher", "aligned", "text")  # compared with the baseline and with the best null


def best_null(scores: Mapping[str, float | None]) -> str | None:
    """The null with the highest score; None without a scored one. `scores`: system -> its score."""
    scored = {name: score for name in NULLS if (score := scores.get(name)) is not None}
    return max(scored, key=lambda name: scored[name]) if scored else None


def comparisons(systems: Collection[str], best: str | None) -> dict[str, tuple[str, str]]:
    """Key of a report's `differences` -> (the system, the one that it is compared with)."""
    others = {"baseline": "baseline"} | ({"best_null": best} if best else {})
    return {
        f"{system}_minus_{name}": (system, other)
        for system in COMPARED
        if system in systems
        for name, other in others.items()
    }


def title(comparison: str) -> str:
    """A key of `differences` in words: `aligned_minus_best_null` -> `aligned − best null`."""
    system, other = comparison.split("_minus_")
    return f"{SYSTEM_TITLES[system]} − {other.replace('_', ' ')}"
