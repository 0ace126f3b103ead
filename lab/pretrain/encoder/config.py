"""Options of `kallos pretrain encoder`."""

from pydantic import Field, model_validator

from cluster.command import Options


class PretrainEncoderConfig(Options):
    """Train the mini encoder."""

    out: str = Field(
        default="runs/pretrain/encoder", description="folder for the checkpoint; it must not contain one yet"
    )
    seed: int = Field(default=0, ge=0, description="seed of weights, captions and order")
    num_images: int = Field(default=20_000, gt=0, description="number of studio images to train on")
    num_held_out: int = Field(
        default=2_000, gt=0, description="number of held-out studio images for the figures of the model card"
    )
    epochs: int = Field(
        default=13, gt=0, description="number of passes over the images, each with new captions"
    )
    batch_size: int = Field(default=256, gt=1, description="number of image-caption pairs of a step")
    learning_rate: float = Field(
        default=1.2e-3, gt=0, description="peak learning rate of the one-cycle schedule"
    )
    weight_decay: float = Field(default=0.05, ge=0, description="AdamW's decoupled weight decay")
    max_minutes: float = Field(
        default=120.0,
        gt=0,
        description="training stops after the epoch that exceeds this time, minutes; the schedule then stays "
        "unfinished",
    )

    @model_validator(mode="after")
    def _check_batch(self) -> "PretrainEncoderConfig":
        if self.batch_size > self.num_images:
            raise ValueError(f"batch_size = {self.batch_size} is more than num_images = {self.num_images}")
        return self
