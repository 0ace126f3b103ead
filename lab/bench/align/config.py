"""Options of `kallos bench align`."""

from pydantic import Field

from lab.bench.config import NUM_RUNS, BenchConfig


class BenchAlignConfig(BenchConfig):
    """Compare a training step with a plain loop."""

    num_queries: int = Field(default=4, ge=1, description="number of queries in a batch of Kallos")
    pairs_per_batch: int = Field(default=32, ge=1, description="number of pairs in a batch of the plain loop")
    num_runs: int = Field(default=5, ge=1, description=NUM_RUNS)
    seconds: float = Field(default=3.0, gt=0, description="shortest time of one side in one turn, seconds")
    num_threads: int | None = Field(
        default=None, ge=1, description="number of torch threads of both sides; default: torch's own choice"
    )
