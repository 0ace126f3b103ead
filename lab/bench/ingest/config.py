"""Options of `kallos bench ingest`."""

from pydantic import Field

from lab.bench.config import BenchConfig


class BenchIngestConfig(BenchConfig):
    """Compare ingest with a plain loop."""

    source: str | None = Field(
        default=None, description="folder of JPEG files; default: a studio written for the benchmark"
    )
    num_images: int = Field(default=2000, ge=100, description="number of images of the studio")
