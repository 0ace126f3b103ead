"""Options of `kallos index`."""

from pydantic import Field

from cluster import command


class IndexConfig(command.JobConfig):
    """Whose index, over which images."""

    encoder: str = Field("live", description="alias or fingerprint of a registered encoder")
    where: str = Field("", description="SQL filter on the images table, empty = every image")
    optimize: bool = Field(False, description="embed nothing: index new rows, join small files, measure")
