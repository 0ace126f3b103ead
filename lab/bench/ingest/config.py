"""Options of `kallos bench ingest`."""

from pydantic import Field

from cluster import command


class BenchIngestConfig(command.JobConfig):
    """Compare ingest with a plain loop."""

    source: str | None = Field(
        default=None, description="folder of JPEG files; default: a studio written for the benchmark"
    )
    num_images: int = Field(default=2000, ge=100, description="images of the studio, a count")
    num_runs: int = Field(default=3, ge=1, description="turns, in each of which both sides run, a count")
