"""Options that every benchmark has."""

from pydantic import Field

from cluster.command import JobConfig

NUM_RUNS = "number of turns, each of which measures both sides"


class BenchConfig(JobConfig):
    """How often a benchmark measures."""

    num_runs: int = Field(default=3, ge=1, description=NUM_RUNS)
