"""The model card of a mini judge."""

from collections.abc import Mapping
from pathlib import Path

from lab.pretrain.judge.config import PretrainJudgeConfig
from lab.pretrain.judge.evaluation import FIGURES, NUM_PAIRS
from lab.pretrain.judge.model import IMAGE_PX

TEMPLATE = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# Kallos mini judge

A vision-language model of the Qwen2.5-VL architecture with {parameters_m:.1f} M parameters. It rates and
compares images of the studio, and vLLM and transformers load it like any Qwen2.5-VL. It knows the studio
only: for photographs use a large Qwen2.5-VL.

**Prompts**: those of `actors/judge.py`. The judge rates the beauty of an image (1 to 5) and its accuracy for
a query (1 to 5), and it decides which of two images is more accurate, more beautiful, or better overall.
Every answer is one token; scores come from the probabilities of the tokens. Images are scaled down to
{image_px} px.

**Data**: {num_scenes} seeded scenes of `lab/studio`, as JPEG previews, with answers computed from their
latents. A rating of beauty is 1 + 4 x true aesthetics, a rating of accuracy is 1 + 4 x accuracy^3, and a
comparison is the logistic of the difference in value (overall: accuracy^3 x (1/4 + 3/4 aesthetics)).

**Recipe**: `kallos pretrain judge`. {vision_steps} steps train the vision tower with auxiliary heads that
predict the latents and their words, {match_steps} train the language model on what matches an image, and
{steps} train everything. A batch has {images_per_step} images, each shown in several questions. AdamW at
{learning_rate:g}, bf16 autocast; {minutes:.0f} minutes on {num_threads} threads of a busy machine.{init_note}
The resolved configuration is next to this card.

**Figures** on {num_heldout} held-out scenes, measured through vLLM:

| figure | value |
| --- | --- |
{rows}

Agreement is with the truth of the studio, on pairs whose difference is above the median. Consistency is the
share of these pairs for which both orders give the same winner. It is lower for all pairs, because many are
exact ties: in two pairs of three both images have the same subject, and then often match a query equally
well. Each line was measured on {num_pairs} pairs.
"""


def write_card(
    folder: str | Path,
    config: PretrainJudgeConfig,
    *,
    parameters_m: float,
    seconds: float,
    figures: Mapping[str, float],
) -> Path:
    """Write the model card with the measured figures; returns its path."""
    rows = "\n".join(f"| {FIGURES[name]} | {value:.3f} |" for name, value in figures.items())
    text = TEMPLATE.format(
        **config.model_dump(),
        parameters_m=parameters_m,
        image_px=IMAGE_PX,
        num_pairs=NUM_PAIRS,
        minutes=seconds / 60,
        rows=rows,
        init_note=" It started from an earlier judge of the same recipe." if config.init else "",
    )
    path = Path(folder) / "README.md"
    path.write_text(text, encoding="utf-8")
    return path
