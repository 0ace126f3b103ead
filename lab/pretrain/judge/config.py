"""Options of `kallos pretrain judge`."""

from pydantic import BaseModel, ConfigDict, Field


class JudgeTraining(BaseModel):
    """What one training run is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    init: str = Field(
        "", description="folder of a judge whose weights and tokenizer to start from, empty = none"
    )
    out: str = Field("runs/pretrain/judge", description="folder for the finished model, must hold none")
    work: str = Field("runs/pretrain/judge_work", description="folder of drawn scenes and checkpoints")
    num_scenes: int = Field(16_000, ge=256, description="scenes drawn to train on, a count")
    num_heldout: int = Field(1_000, ge=64, description="scenes drawn to measure on, a count")
    vision_steps: int = Field(4_000, ge=0, description="steps in which the vision tower learns alone")
    match_steps: int = Field(
        1_000,
        ge=0,
        description="steps in which the language model learns to tell what fits, the vision tower fixed",
    )
    steps: int = Field(1_800, ge=1, description="steps in which everything learns together")
    images_per_step: int = Field(32, ge=8, description="images of a batch, a multiple of 4")
    pairs_per_criterion: int = Field(
        16, ge=1, description="pairs of a batch compared by accuracy, and overall, in both orders, a count"
    )
    learning_rate: float = Field(1.0e-3, gt=0, description="peak of the schedule, AdamW")
    weight_decay: float = Field(0.05, ge=0, description="decoupled, on matrices only")
    vision_width: int = Field(192, ge=32, description="width of the vision tower, a multiple of 32")
    vision_depth: int = Field(4, ge=1, description="blocks of the vision tower, a count")
    text_width: int = Field(192, ge=64, description="width of the language model, a multiple of 32")
    text_depth: int = Field(4, ge=1, description="blocks of the language model, a count")
    vocab_size: int = Field(1_024, ge=300, description="most tokens of the byte-level vocabulary, a count")
    checkpoint_every_s: float = Field(180.0, gt=0, description="seconds between checkpoints")
    num_threads: int = Field(2, ge=1, description="torch threads and drawing processes, a count")
    seed: int = Field(0, ge=0, description="fixes scenes, weights and the order of batches")
