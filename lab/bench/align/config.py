"""Options of `kallos bench align`."""

from pydantic import Field

from cluster import command


class BenchAlignConfig(command.JobConfig):
    """How much is measured."""

    num_queries: int = Field(4, ge=1, description="queries in a batch of ours")
    pairs_per_batch: int = Field(32, ge=1, description="pairs in a batch of the naive loop")
    num_runs: int = Field(5, ge=1, description="turns, each of both sides, a count")
    seconds: float = Field(3.0, gt=0, description="shortest time of one side in one turn, seconds")
    num_threads: int = Field(0, ge=0, description="torch threads of both sides, 0 = torch's own choice")
