"""Options of `kallos bench serve`."""

from pydantic import Field

from lab.bench.config import BenchConfig


class BenchServeConfig(BenchConfig):
    """Compare the server with a plain Flask loop, and disturb it under load."""

    num_images: int = Field(default=20_000, ge=500, description="number of images of the index")
    num_single: int = Field(default=200, ge=10, description="number of requests of a turn, sent one by one")
    num_loaded: int = Field(default=1000, ge=64, description="number of requests in a turn under load")
    concurrency: int = Field(default=32, ge=2, description="number of simultaneous requests under load")
    num_promoted: int = Field(
        default=5000, ge=0, description="number of requests while encoders are promoted; 0 skips this part"
    )
    soak_s: float = Field(
        default=60.0,
        ge=0,
        description="time under load while replicas are killed, seconds; 0 skips this part",
    )
    seed: int = Field(default=0, ge=0, description="seed of vectors and queries")
