"""Options of `kallos align`."""

from typing import Literal

from pydantic import Field

from cluster import command
from cluster.profile import Objective


class AlignConfig(command.JobConfig):
    """What to align, and with what; the rest is the profile's `align` and `guard`."""

    run_id: str = Field(
        "",
        description="run whose preferences to learn from, several separated by commas, empty = all; "
        "`feedback` is what people chose",
    )
    parent: str = Field("baseline", description="alias or fingerprint of the encoder to start from")
    where: str = Field("", description="SQL filter on the images whose captions anchor the encoder")
    out: str = Field("", description="folder for the encoder and training state, empty = beside the store")
    mode: Literal["", "both", "text"] = Field("", description="which towers learn, empty = the profile's")
    objective: Literal[""] | Objective = Field("", description="preference loss, empty = the profile's")
    epochs: int = Field(0, ge=0, description="passes over the preferences, 0 = the profile's")
    learning_rate: float = Field(0.0, ge=0, description="AdamW's peak step size, 0 = the profile's")
    num_workers: int = Field(0, ge=0, description="training workers, 0 = the profile's")
    seed: int = Field(-1, ge=-1, description="seed of order and sampling, -1 = the profile's")
    keep_epochs: bool = Field(
        False, description="leave each epoch's checkpoint in the training state, to measure them all later"
    )
