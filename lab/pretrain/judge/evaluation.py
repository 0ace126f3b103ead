"""Measures a mini judge as it is used in production: through vLLM, with the prompts of `actors.judge`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from actors.engine import make_engine
from actors.judge import CRITERIA, Criterion, Judge
from cluster.profile import load_profile
from lab.pretrain.judge.queries import accuracy_value, matching_query, near_miss_query, overall_value
from lab.pretrain.judge.questions import sample_pair
from lab.pretrain.judge.scenes import LabelledScenes
from lab.studio.latents import Latents, is_accurate, true_aesthetics

NUM_PAIRS = 600
# The name of each figure, and its text in the model card.
FIGURES = {
    "aesthetics_spearman": "rating of beauty, rank correlation with the truth",
    "aesthetics_mae": "rating of beauty, mean absolute error (scale 1 to 5)",
    "accuracy_auc": "rating of accuracy, area under the ROC curve (accurate or not)",
    "accuracy_hard_auc": "the same, against near misses (one attribute wrong)",
    "accuracy_decision": "accurate or not, with a threshold of 3",
    "agreement_accuracy": "comparison by accuracy, agreement",
    "agreement_aesthetics": "comparison by aesthetics, agreement",
    "agreement_overall": "comparison overall, agreement",
    "consistency_accuracy": "comparison by accuracy, consistency of order",
    "consistency_aesthetics": "comparison by aesthetics, consistency of order",
    "consistency_overall": "comparison overall, consistency of order",
    "consistency_of_all_accuracy": "the same by accuracy, for all pairs",
    "consistency_of_all_aesthetics": "the same by aesthetics, for all pairs",
    "consistency_of_all_overall": "the same overall, for all pairs",
}


def measure(folder: str | Path, scenes: LabelledScenes, seed: int) -> dict[str, float]:
    """Figures, named as in `FIGURES`, of the judge in `folder` on scenes that it was not trained on.

    The engine has the settings of the `mini` profile.
    """
    settings = load_profile("mini").judge.model_copy(update={"model": str(folder)})
    judge = Judge(make_engine(settings), settings.image_px)
    images = [Image.fromarray(pixels) for pixels in scenes.pixels]
    rng = np.random.default_rng(seed)
    figures = {
        **measure_ratings(judge, scenes, images),
        **measure_accuracy(judge, scenes.latents, images, rng),
    }
    for criterion in CRITERIA:
        figures.update(measure_comparison(judge, criterion, scenes.latents, images, rng))
    return figures


def measure_ratings(judge: Judge, scenes: LabelledScenes, images: Sequence[Image.Image]) -> dict[str, float]:
    """How close the ratings of beauty are to the truth."""
    ratings = judge.aesthetics(images)
    correlation: Any = spearmanr(ratings, scenes.aesthetics)
    return {
        "aesthetics_spearman": float(correlation.statistic),
        "aesthetics_mae": float(np.abs(ratings - 1 - 4 * scenes.aesthetics).mean()),
    }


def measure_accuracy(
    judge: Judge, latents: list[Latents], images: list[Image.Image], rng: np.random.Generator
) -> dict[str, float]:
    """How well the ratings of accuracy separate accurate images from others.

    Every image is rated for a matching query, a near miss, and a query made for another image.
    """
    others = [latents[i] for i in rng.permutation(len(latents))]
    matching = [matching_query(scene, rng) for scene in latents]
    near_misses = [near_miss_query(scene, rng) for scene in latents]
    of_others = [matching_query(scene, rng) for scene in others]
    queries = [*matching, *near_misses, *of_others]
    truth = np.array([is_accurate(query, scene) for query, scene in zip(queries, latents * 3, strict=True)])
    ratings = judge.accuracy(queries, images * 3)
    hard = 2 * len(latents)
    return {
        "accuracy_auc": float(roc_auc_score(truth, ratings)),
        "accuracy_hard_auc": float(roc_auc_score(truth[:hard], ratings[:hard])),
        "accuracy_decision": float(((ratings >= 3.0) == truth).mean()),
    }


def measure_comparison(
    judge: Judge,
    criterion: Criterion,
    latents: list[Latents],
    images: list[Image.Image],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Agreement and consistency of order on clear pairs, and consistency of order on all pairs."""
    order = sorted(range(len(latents)), key=lambda i: latents[i].subject)
    pairs = [
        (order[a], order[b]) for a, b in (sample_pair(rng, len(order) // 4 * 4) for _ in range(NUM_PAIRS))
    ]
    queries = [matching_query(latents[pair[rng.integers(2)]], rng) for pair in pairs]
    gaps = np.array(
        [_gap(criterion, query, latents[a], latents[b]) for query, (a, b) in zip(queries, pairs, strict=True)]
    )
    result = judge.compare(criterion, queries, [images[a] for a, _ in pairs], [images[b] for _, b in pairs])
    is_clear = (np.abs(gaps) >= np.median(np.abs(gaps))) & (gaps != 0)
    return {
        f"agreement_{criterion}": float(((result.p > 0.5) == (gaps > 0))[is_clear].mean()),
        f"consistency_{criterion}": float(result.consistent[is_clear].mean()),
        f"consistency_of_all_{criterion}": float(result.consistent.mean()),
    }


def _gap(criterion: Criterion, query: str, a: Latents, b: Latents) -> float:
    """True difference in value between two scenes."""
    if criterion == "aesthetics":
        return true_aesthetics(a) - true_aesthetics(b)
    value = accuracy_value if criterion == "accuracy" else overall_value
    return value(query, a) - value(query, b)
