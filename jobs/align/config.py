"""Options of `kallos align`."""

from typing import Literal

from pydantic import Field

from cluster import command
from cluster.profile import Objective


class AlignConfig(command.JobConfig):
    """Align an encoder with the preferences of the store."""

    run_id: str | None = Field(
        default=None,
        description="runs whose preferences are used, separated by commas; `feedback` is what people chose; "
        "default: all runs",
    )
    parent: str = Field(default="baseline", description="alias or fingerprint of the encoder to start from")
    where: str | None = Field(
        default=None,
        description="SQL filter on the images whose captions train the contrastive loss; default: all images",
    )
    out: str | None = Field(
        default=None, description="folder for the encoder and the training state; default: beside the store"
    )
    mode: Literal["both", "text"] | None = Field(
        default=None, description="towers that train; default: the profile's align.mode"
    )
    objective: Objective | None = Field(
        default=None, description="preference loss; default: the profile's align.objective"
    )
    epochs: int | None = Field(
        default=None,
        ge=1,
        description="number of passes over the preferences; default: the profile's align.epochs",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="AdamW's peak learning rate; default: the profile's align.learning_rate",
    )
    num_workers: int | None = Field(
        default=None, ge=1, description="number of training workers; default: the profile's align.num_workers"
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        description="seed of the training order and of sampling; default: the profile's align.seed",
    )
    keep_epochs: bool = Field(
        default=False,
        description="keep the checkpoint of every epoch in the training state, to measure each later",
    )
