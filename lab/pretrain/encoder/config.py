"""Options of `kallos pretrain encoder`."""

from pydantic import Field

from cluster.command import JobConfig


class EncoderTraining(JobConfig):
    """How the mini encoder is trained."""

    out: str = Field("runs/pretrain/encoder", description="folder for the checkpoint, must hold none")
    seed: int = Field(0, description="seed of weights, captions and order")
    num_images: int = Field(20_000, gt=0, description="studio scenes to train on")
    num_held_out: int = Field(
        2_000, gt=0, description="scenes of the gallery that the card's figures come from"
    )
    epochs: int = Field(13, gt=0, description="passes over the scenes, each with new captions")
    batch_size: int = Field(256, gt=1, description="image-caption pairs a step")
    learning_rate: float = Field(1.2e-3, gt=0, description="peak of the one-cycle schedule")
    weight_decay: float = Field(0.05, ge=0, description="AdamW's decoupled decay")
    max_minutes: float = Field(
        120.0, gt=0, description="stop after the epoch that passes this, the schedule left unfinished"
    )
