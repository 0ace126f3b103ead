"""Options of `kallos bench label`."""

from typing import Literal

from pydantic import Field

from cluster import command


class BenchLabelConfig(command.JobConfig):
    """What is measured, and how often."""

    num_requests: int = Field(1024, ge=1, description="requests of a turn, beside the warm-up batch")
    num_runs: int = Field(3, ge=1, description="turns of each side")
    models: tuple[Literal["llm", "lmm"], ...] = Field(
        ("llm", "lmm"), description="which are measured: the rephraser's stage, the judge's stage"
    )
    style: str = Field("", description="prompt style of the queries, empty = the profile's")
    seed: int = Field(0, ge=0, description="seed of the queries")
