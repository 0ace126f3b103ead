"""Simulated people look at two result rows: the studio's raters in the place of a panel."""

from collections.abc import Mapping, Sequence

import numpy as np

from jobs.evaluate.figures.winrate import TIE
from lab.studio.latents import Latents, is_accurate
from lab.studio.raters import Rater, sample_raters, votes

NUM_RATERS = 7


def outcomes(
    latents: Mapping[str, Latents],
    queries: Sequence[str],
    rows_a: Sequence[Sequence[str]],
    rows_b: Sequence[Sequence[str]],
    *,
    seed: int,
) -> np.ndarray:
    """WIN, TIE or LOSS of row A by the majority of `NUM_RATERS` raters, int [Q].

    A rater's score of a row is the mean over its images of accurate x the beauty this rater sees, seen with
    noise. Rows that hold the same images in any order are a tie, and so is an empty one.
    """
    rng = np.random.default_rng((seed, len(queries)))
    raters = sample_raters(rng, NUM_RATERS)
    found = np.full(len(queries), TIE)
    for number, (query, a, b) in enumerate(zip(queries, rows_a, rows_b, strict=True)):
        if a and b and sorted(a) != sorted(b):
            groups = ([latents[i] for i in a], [latents[i] for i in b])
            for_a, for_b = votes(lambda rater, x, query=query: _gated(rater, x, query), raters, groups, rng)
            found[number] = np.sign(for_a - for_b)
    return found


def _gated(rater: Rater, latents: Latents, query: str) -> float:
    return rater.aesthetics(latents) if is_accurate(query, latents) else 0.0
