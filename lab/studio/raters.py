"""Simulated raters with different tastes, who vote on pairs of image groups in HPIR form.

Every rater weighs the aspects of an image differently and judges with some noise, so that votes have
majorities and confidence. The form is that of the paper's benchmark (section 4): a query, two groups of
images, and the number of people who prefer each group for accuracy and, separately, for aesthetics.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lab.studio.latents import AESTHETIC_WEIGHTS, Latents, true_accuracy

TASTE_CONCENTRATION = 30.0  # of the Dirichlet distribution: the larger, the more similar the tastes
SCORE_NOISE = 0.08  # standard deviation of the noise in a rater's difference of two groups, in score units


@dataclass(frozen=True)
class Rater:
    """One simulated person, with the weight of each aspect (the weights sum to 1)."""

    taste: Mapping[str, float]

    def aesthetics(self, latents: Latents) -> float:
        """How beautiful a scene is to this rater, in [0, 1]."""
        return sum(weight * latents.aspect(name) for name, weight in self.taste.items())


def sample_raters(rng: np.random.Generator, num_raters: int) -> list[Rater]:
    """Raters whose weights scatter around `AESTHETIC_WEIGHTS`."""
    alpha = TASTE_CONCENTRATION * np.array(list(AESTHETIC_WEIGHTS.values()))
    return [
        Rater(dict(zip(AESTHETIC_WEIGHTS, weights, strict=True)))
        for weights in rng.dirichlet(alpha, num_raters)
    ]


def votes(
    score: Callable[[Rater, Latents], float],
    raters: Sequence[Rater],
    groups: tuple[Sequence[Latents], Sequence[Latents]],
    rng: np.random.Generator,
) -> tuple[int, int]:
    """How many raters prefer the first and the second group, by their noisy mean score of each."""
    gaps = [
        np.mean([score(rater, x) for x in groups[0]]) - np.mean([score(rater, x) for x in groups[1]])
        for rater in raters
    ]
    for_first = int(np.sum(np.array(gaps) + rng.normal(0.0, SCORE_NOISE, len(gaps)) > 0))
    return for_first, len(raters) - for_first


def hpir_row(
    query: str,
    scenes: Mapping[str, Latents],
    accurate: Sequence[str],
    raters: Sequence[Rater],
    rng: np.random.Generator,
    group_size: int = 5,
) -> dict:
    """One HPIR row: two disjoint groups of `group_size` images, and the votes of all raters.

    The groups are drawn with opposite preferences for beauty; a few of their images are replaced by images
    that do not match the query.

    scenes: image_id -> latents of all images that may appear. accurate: ids of images that match the query,
    at least `2 * group_size`.
    """
    beauty = np.array([sum(w * scenes[i].aspect(a) for a, w in AESTHETIC_WEIGHTS.items()) for i in accurate])
    order = np.argsort(rng.normal(0.0, 3.0) * beauty + rng.gumbel(size=len(beauty)))
    ordered = [accurate[int(i)] for i in order]
    groups = [ordered[:group_size], ordered[-group_size:]]
    others = sorted(set(scenes) - set(accurate))
    replacements = iter(rng.choice(others, 2 * group_size, replace=False))
    groups = [[str(next(replacements)) if rng.random() < 0.15 else i for i in group] for group in groups]
    shown = [scenes[i] for i in groups[0]], [scenes[i] for i in groups[1]]
    votes_accuracy = votes(lambda _, latents: true_accuracy(query, latents), raters, shown, rng)
    votes_aesthetic = votes(lambda rater, latents: rater.aesthetics(latents), raters, shown, rng)
    return {
        "query": query,
        "group_a": groups[0],
        "group_b": groups[1],
        "votes_accuracy_a": votes_accuracy[0],
        "votes_accuracy_b": votes_accuracy[1],
        "votes_aesthetic_a": votes_aesthetic[0],
        "votes_aesthetic_b": votes_aesthetic[1],
    }
