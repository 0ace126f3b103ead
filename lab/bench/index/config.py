"""Options of `kallos bench index`."""

from pydantic import Field

from lab.bench.config import BenchConfig


class BenchIndexConfig(BenchConfig):
    """Compare an approximate index with exact search."""

    num_rows: int = Field(default=100_000, ge=100, description="vectors in the table, a count")
    dim: int = Field(default=128, ge=2, description="length of a vector, a count")
    num_queries: int = Field(default=200, ge=1, description="queries of a turn, a count")
    seed: int = Field(default=0, ge=0, description="seed of vectors and queries")
