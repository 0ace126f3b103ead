"""Options of `kallos ingest`."""

from typing import Literal

from pydantic import Field

from actors.images import MAX_PIXELS
from cluster import command


class IngestConfig(command.JobConfig):
    """What to ingest, and how its columns are called."""

    source: str = Field(
        description="folder, Parquet, WebDataset tars or Lance table; a path or a filesystem URI"
    )
    kind: Literal["auto", "folder", "parquet", "webdataset", "lance"] = Field(
        "auto", description="what the source is; auto tells it from names and contents"
    )
    label: str = Field("", description="value of the images' `source` column, empty = the source's own name")
    metadata: str = Field(
        "",
        description="table that joins captions to a folder's files, empty = its metadata.{parquet,csv,jsonl}",
    )
    bytes_column: str = Field(
        "bytes", description="column of Parquet and Lance sources with the file's bytes"
    )
    uri_column: str = Field("uri", description="column of Parquet and Lance sources with the file's address")
    caption_column: str = Field("caption", description="column with an image's caption")
    tag_columns: tuple[str, ...] = Field(
        ("split",), description="columns whose values become tags of the form `column:value`"
    )
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="images with more pixels are rejected, a count")
    flush_seconds: float = Field(
        5.0,
        ge=0,
        description="longest time between merges into the tables, seconds; a killed run loses that much",
    )
    preview_px: int = Field(256, ge=16, description="longer side of the stored previews, pixels")
