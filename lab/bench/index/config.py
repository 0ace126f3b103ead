"""Options of `kallos bench index`."""

from pydantic import Field

from lab.bench.config import BenchConfig


class BenchIndexConfig(BenchConfig):
    """Compare an approximate index with exact search."""

    num_rows: int = Field(default=100_000, ge=100, description="number of vectors in the table")
    dim: int = Field(default=128, ge=2, description="length of a vector")
    num_queries: int = Field(default=200, ge=1, description="number of queries of a turn")
    seed: int = Field(default=0, ge=0, description="seed of vectors and queries")
