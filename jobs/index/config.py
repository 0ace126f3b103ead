"""Options of `kallos index`."""

from pydantic import Field

from cluster import command


class IndexConfig(command.JobConfig):
    """Embed the images with an encoder and build its index."""

    encoder: str = Field(default="live", description="alias or fingerprint of a registered encoder")
    where: str | None = Field(default=None, description="SQL filter on the images table; default: all images")
    optimize: bool = Field(
        default=False, description="embed nothing; add new rows to the index, merge small files, and measure"
    )
