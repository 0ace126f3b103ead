"""Options of `kallos bench ingest`."""

from pydantic import Field

from cluster import command


class BenchIngestConfig(command.JobConfig):
    """How much is measured."""

    source: str = Field("", description="folder of JPEG files, empty = a studio written for the occasion")
    num_images: int = Field(2000, ge=100, description="images of the studio, a count")
    num_runs: int = Field(3, ge=1, description="turns, each of both sides, a count")
