"""Options of `kallos pretrain judge`."""

from pydantic import Field

from cluster.command import Options


class PretrainJudgeConfig(Options):
    """Train the mini judge."""

    init: str | None = Field(
        default=None,
        description="folder of a judge whose weights and tokenizer to start from; default: a new model",
    )
    out: str = Field(
        default="runs/pretrain/judge", description="folder for the checkpoint; it must not contain one yet"
    )
    work: str = Field(
        default="runs/pretrain/judge_work", description="folder of drawn scenes and checkpoints"
    )
    num_scenes: int = Field(default=16_000, ge=256, description="number of scenes drawn to train on")
    num_heldout: int = Field(default=1_000, ge=64, description="number of scenes drawn to measure on")
    vision_steps: int = Field(
        default=4_000, ge=0, description="number of steps that train the vision tower alone"
    )
    match_steps: int = Field(
        default=1_000,
        ge=0,
        description="number of steps that train the language model to recognise matches, with the vision "
        "tower frozen",
    )
    steps: int = Field(default=1_800, ge=1, description="number of steps that train everything together")
    images_per_step: int = Field(
        default=32, ge=8, multiple_of=4, description="number of images in a batch, a multiple of 4"
    )
    pairs_per_criterion: int = Field(
        default=16,
        ge=1,
        description="number of pairs of a batch compared by accuracy, and as many compared overall, each in "
        "both orders",
    )
    learning_rate: float = Field(default=1.0e-3, gt=0, description="AdamW's peak learning rate")
    weight_decay: float = Field(
        default=0.05, ge=0, description="AdamW's decoupled weight decay, on matrices only"
    )
    vision_width: int = Field(
        default=192,
        ge=32,
        multiple_of=32,
        description="width of the vision tower, in channels, a multiple of 32",
    )
    vision_depth: int = Field(default=4, ge=1, description="number of blocks of the vision tower")
    text_width: int = Field(
        default=192,
        ge=64,
        multiple_of=32,
        description="width of the language model, in channels, a multiple of 32",
    )
    text_depth: int = Field(default=4, ge=1, description="number of blocks of the language model")
    vocab_size: int = Field(
        default=1_024, ge=300, description="maximum number of tokens in the byte-level vocabulary"
    )
    checkpoint_every_s: float = Field(default=180.0, gt=0, description="time between checkpoints, seconds")
    num_threads: int = Field(
        default=2, ge=1, description="number of torch threads, and of processes that draw scenes"
    )
    seed: int = Field(default=0, ge=0, description="seed of scenes, weights and the order of batches")
