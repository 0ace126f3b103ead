"""Aligns an encoder with preferences and registers the result as `candidate`.

Tables `preferences`, `images`, `embeddings_<parent>` -> an open_clip folder `<out>/encoders/<fingerprint>`
and a row in `encoders`. Training state lies in `<out>/align/<run>`, where the run is named by the hash of all
that decides its result: the same command started again goes on where it stopped, or finds the work done.

    kallos align --profile mini --run-id RUN
    kallos align --profile mini --run-id RUN,feedback      # and what people chose on the search page
"""

from typing import Any, Literal

from pydantic import Field

from cluster.profile import Objective
from jobs import command


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


def run(config: AlignConfig) -> dict[str, Any]:
    """Align, save, register; returns the report. Raises UserError for the user's mistakes."""
    from jobs.align.job import align  # here, so that `--help` waits for neither torch nor Ray

    return align(config)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    command.main(AlignConfig, run, argv)
