"""Options of `kallos ingest`."""

from typing import Literal

from pydantic import Field

from actors.images import MAX_PIXELS
from cluster import command


class IngestConfig(command.JobConfig):
    """Read images, check them, embed them."""

    source: str = Field(
        description="folder, Parquet files, WebDataset tars or Lance table; a path or a filesystem URI"
    )
    kind: Literal["folder", "parquet", "webdataset", "lance"] | None = Field(
        default=None, description="kind of the source; default: recognised from names and sizes"
    )
    label: str | None = Field(
        default=None, description="value of the images' `source` column; default: the name of the source"
    )
    metadata: str | None = Field(
        default=None,
        description="table that joins captions to the files of a folder; "
        "default: the folder's metadata.{parquet,csv,jsonl}",
    )
    include_hidden: bool = Field(
        default=False,
        description="read hidden files and folders too, and folders of thumbnails or deleted files",
    )
    bytes_column: str = Field(
        default="bytes", description="column of Parquet and Lance sources that holds the image file's bytes"
    )
    uri_column: str = Field(
        default="uri", description="column of Parquet and Lance sources that holds the image file's address"
    )
    caption_column: str = Field(default="caption", description="column that holds an image's caption")
    tag_columns: tuple[str, ...] = Field(
        default=("split",), description="columns whose values become tags of the form `column:value`"
    )
    max_pixels: int = Field(
        default=MAX_PIXELS, ge=1, description="maximum number of pixels; larger images are rejected"
    )
    flush_seconds: float = Field(
        default=5.0,
        ge=0,
        description="longest time between writes to the tables, seconds; a killed run loses that much",
    )
    preview_px: int = Field(
        default=256, ge=16, le=8192, description="longer side of the stored previews, pixels"
    )
