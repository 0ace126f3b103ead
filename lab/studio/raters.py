"""Simulated people: raters with tastes of their own, who vote on pairs of image groups in HPIR form.

Every rater weighs the aspects of a picture in their own way and sees with some noise, so that majorities,
ties and confidence exist. Form after the paper's benchmark (section 4): a query, two groups of images, the
number of people who prefer each group for accuracy and, separately, for aesthetics.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lab.studio.latents import AESTHETIC_WEIGHTS, Latents, true_accuracy

TASTE_CONCENTRATION = 30.0  # Dirichlet: the larger, the more alike the tastes
SIGHT_NOISE = 0.08  # standard deviation of one look at one group, in aesthetic units


@dataclass(frozen=True)
class Rater:
    """One person: how much each aspect counts for them (the weights sum to 1)."""

    taste: Mapping[str, float]

    def aesthetics(self, latents: Latents) -> float:
        """How beautiful this person finds a scene, in [0, 1]."""
        return sum(weight * latents.aspect(name) for name, weight in self.taste.items())


def sample_raters(rng: np.random.Generator, num_raters: int) -> list[Rater]:
    """People whose tastes scatter around the studio's true weights."""
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
    """How many raters prefer the first and the second group by their own mean score, seen with noise."""
    gaps = [
        np.mean([score(rater, x) for x in groups[0]]) - np.mean([score(rater, x) for x in groups[1]])
        for rater in raters
    ]
    for_first = int(np.sum(np.array(gaps) + rng.normal(0.0, SIGHT_NOISE, len(gaps)) > 0))
    return for_first, len(raters) - for_first


def hpir_row(
    query: str,
    scenes: Mapping[str, Latents],
    accurate: Sequence[str],
    raters: Sequence[Rater],
    rng: np.random.Generator,
    group_size: int = 5,
) -> dict:
    """One HPIR row: two disjoint groups of `group_size` images and everybody's votes.

    The groups are drawn with opposite leanings towards beauty; a few images are replaced by ones that do not
    answer the query.

    Args:
        scenes: image_id -> latents of all images that may appear.
        accurate: image_ids that answer the query, at least `2 * group_size`.
    """
    beauty = np.array([sum(w * scenes[i].aspect(a) for a, w in AESTHETIC_WEIGHTS.items()) for i in accurate])
    lean = np.argsort(rng.normal(0.0, 3.0) * beauty + rng.gumbel(size=len(beauty)))
    groups = [[accurate[i] for i in lean[:group_size]], [accurate[i] for i in lean[-group_size:]]]
    others = sorted(set(scenes) - set(accurate))
    strays = iter(rng.choice(others, 2 * group_size, replace=False))
    groups = [[str(next(strays)) if rng.random() < 0.15 else i for i in group] for group in groups]
    seen = tuple([scenes[i] for i in group] for group in groups)
    votes_accuracy = votes(lambda _, latents: true_accuracy(query, latents), raters, seen, rng)
    votes_aesthetic = votes(lambda rater, latents: rater.aesthetics(latents), raters, seen, rng)
    return {
        "query": query,
        "group_a": groups[0],
        "group_b": groups[1],
        "votes_accuracy_a": votes_accuracy[0],
        "votes_accuracy_b": votes_accuracy[1],
        "votes_aesthetic_a": votes_aesthetic[0],
        "votes_aesthetic_b": votes_aesthetic[1],
    }
