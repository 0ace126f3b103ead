"""Options of `kallos bench serve`."""

from pydantic import Field

from lab.bench.config import BenchConfig


class BenchServeConfig(BenchConfig):
    """Compare the server with a plain Flask loop, and disturb it under load."""

    num_images: int = Field(default=20_000, ge=500, description="images of the index, a count")
    num_single: int = Field(default=200, ge=10, description="requests of a turn, one at a time, a count")
    num_loaded: int = Field(default=1000, ge=64, description="requests of a turn under load, a count")
    concurrency: int = Field(default=32, ge=2, description="simultaneous requests under load, a count")
    num_promoted: int = Field(
        default=5000, ge=0, description="requests while encoders are promoted, a count; 0 skips this part"
    )
    soak_s: float = Field(
        default=60.0,
        ge=0,
        description="time under load while replicas are killed, seconds; 0 skips this part",
    )
    seed: int = Field(default=0, ge=0, description="seed of vectors and queries")
