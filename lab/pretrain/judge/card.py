"""Measures a trained judge as it is served (vLLM, the prompts of `actors.judge`), and writes its model
card.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from actors.engine import make_engine
from actors.judge import CRITERIA, Criterion, Judge
from cluster.profile import load_profile
from lab.pretrain.judge.model import IMAGE_PX
from lab.pretrain.judge.questions import accuracy_value, ask, ask_for_another, overall_value, sample_pair
from lab.pretrain.judge.scenes import Scenes
from lab.studio.latents import Latents, is_accurate, true_aesthetics

if TYPE_CHECKING:
    from lab.pretrain.judge.config import JudgeTraining

NUM_PAIRS = 600

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# Kallos mini judge

A language-and-vision model of the Qwen2.5-VL architecture with {parameters_m:.1f} M parameters, which rates
and compares pictures of the studio. vLLM and transformers load it like its large relatives. It knows the
studio alone: for photographs take a real Qwen2.5-VL.

**Asked** with the prompts of `actors/judge.py`: beauty of a picture (1 to 5), accuracy for a query (1 to 5),
and which of two pictures is more accurate, more beautiful, or the better answer. Every answer is one token;
scores come from the tokens' probabilities. Pictures are shrunk to {image_px} px.

**Data**: {num_scenes} seeded scenes of `lab/studio`, through the JPEG of their previews; answers from their
latents. A rating of beauty is 1 + 4 x true aesthetics, one of accuracy is 1 + 4 x accuracy^3, a comparison is
the logistic of the difference in value (overall: accuracy^3 x (1/4 + 3/4 aesthetics)).

**Recipe**: `kallos pretrain judge`. {vision_steps} steps of the vision tower with auxiliary heads on the
latents and the words for them, {match_steps} of the language model on what fits a picture, then {steps} of
everything, in batches of {images_per_step} images that several questions share; AdamW at {learning_rate:g},
bf16 autocast; {minutes:.0f} minutes on {num_threads} threads of a busy machine.{started} The resolved
configuration lies beside this card.

**Figures** on {num_heldout} scenes never trained on, measured through vLLM:

| figure | value |
| --- | --- |
{rows}

Agreement is with the studio's truth on pairs whose difference is above the median; consistency is the share
of those pairs whose two orders name the same winner. Of all pairs it is lower, for many are exact ties: they
share their subject two times in three, and then often answer a query equally well. {num_pairs} pairs a line.
"""

NAMES = {
    "aesthetics_spearman": "rating of beauty, rank correlation with the truth",
    "aesthetics_mae": "rating of beauty, mean absolute error (scale 1 to 5)",
    "accuracy_auc": "rating of accuracy, area under the ROC curve (accurate or not)",
    "accuracy_hard_auc": "the same against queries with one attribute wrong",
    "accuracy_decision": "accurate or not, decided at a rating of 3",
    "agreement_accuracy": "comparison by accuracy, agreement",
    "agreement_aesthetics": "comparison by aesthetics, agreement",
    "agreement_overall": "comparison overall, agreement",
    "consistency_accuracy": "comparison by accuracy, consistency of order",
    "consistency_aesthetics": "comparison by aesthetics, consistency of order",
    "consistency_overall": "comparison overall, consistency of order",
    "consistency_of_all_accuracy": "the same by accuracy, of all pairs",
    "consistency_of_all_aesthetics": "the same by aesthetics, of all pairs",
    "consistency_of_all_overall": "the same overall, of all pairs",
}


def measure(folder: str | Path, scenes: Scenes, seed: int) -> dict[str, float]:
    """Figures of the judge in `folder` on scenes it was not trained on; the names are those of `NAMES`.

    It is hosted as the `mini` profile hosts its judge.
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


def measure_ratings(judge: Judge, scenes: Scenes, images: list[Image.Image]) -> dict[str, float]:
    """How well the ratings of beauty follow the truth."""
    ratings = judge.aesthetics(images)
    return {
        "aesthetics_spearman": float(spearmanr(ratings, scenes.aesthetics).statistic),
        "aesthetics_mae": float(np.abs(ratings - 1 - 4 * scenes.aesthetics).mean()),
    }


def measure_accuracy(
    judge: Judge, latents: list[Latents], images: list[Image.Image], rng: np.random.Generator
) -> dict[str, float]:
    """How well the ratings of accuracy tell accurate images: one fitting, one nearly fitting and one other
    query for each image.
    """
    others = [latents[i] for i in rng.permutation(len(latents))]
    fitting = [ask(scene, rng) for scene in latents]
    nearly = [ask_for_another(scene, rng) for scene in latents]
    other = [ask(scene, rng) for scene in others]
    asked = list(zip([*fitting, *nearly, *other], latents * 3, strict=True))
    truth = np.array([is_accurate(query, scene) for query, scene in asked])
    ratings = judge.accuracy([*fitting, *nearly, *other], images * 3)
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
    """Agreement on pairs that truly differ, and consistency of order on all."""
    order = sorted(range(len(latents)), key=lambda i: latents[i].subject)
    pairs = [tuple(order[i] for i in sample_pair(rng, len(order) // 4 * 4)) for _ in range(NUM_PAIRS)]
    queries = [ask(latents[pair[rng.integers(2)]], rng) for pair in pairs]
    gaps = np.array(
        [_gap(criterion, q, latents[a], latents[b]) for q, (a, b) in zip(queries, pairs, strict=True)]
    )
    result = judge.compare(criterion, queries, [images[a] for a, _ in pairs], [images[b] for _, b in pairs])
    telling = (np.abs(gaps) >= np.median(np.abs(gaps))) & (gaps != 0)
    return {
        f"agreement_{criterion}": float(((result.p > 0.5) == (gaps > 0))[telling].mean()),
        f"consistency_{criterion}": float(result.consistent[telling].mean()),
        f"consistency_of_all_{criterion}": float(result.consistent.mean()),
    }


def _gap(criterion: Criterion, query: str, a: Latents, b: Latents) -> float:
    if criterion == "aesthetics":
        return true_aesthetics(a) - true_aesthetics(b)
    value = accuracy_value if criterion == "accuracy" else overall_value
    return value(query, a) - value(query, b)


def write_card(
    folder: str | Path,
    config: "JudgeTraining",
    *,
    parameters_m: float,
    seconds: float,
    figures: dict[str, float],
) -> Path:
    """Write the model card with the figures measured."""
    rows = "\n".join(f"| {NAMES[name]} | {value:.3f} |" for name, value in figures.items())
    text = CARD.format(
        **config.model_dump(),
        parameters_m=parameters_m,
        image_px=IMAGE_PX,
        num_pairs=NUM_PAIRS,
        minutes=seconds / 60,
        rows=rows,
        started=" It started from an earlier judge of the same recipe." if config.init else "",
    )
    path = Path(folder) / "README.md"
    path.write_text(text, encoding="utf-8")
    return path
