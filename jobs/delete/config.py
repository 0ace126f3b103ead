"""Options of `kallos delete`."""

from pydantic import Field

from cluster import command


class DeleteConfig(command.JobConfig):
    """Remove images from every table and index."""

    image_ids: tuple[str, ...] = Field(
        min_length=1, description="images to remove, each the sha256 of its file's bytes, 64 hex characters"
    )
