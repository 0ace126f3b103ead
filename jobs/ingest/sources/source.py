"""The common form of all sources: a Ray dataset, and a function that turns its batches into rows.

Everything that can be checked without reading images is checked before any work starts.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import ray.data

from cluster.errors import UserError, shown
from cluster.profile import Stage
from jobs.ingest.config import IngestConfig
from jobs.ingest.prepare import SourceRow
from jobs.ingest.sources.image_text import ImageText, TextColumns
from jobs.ingest.sources.listing import Location, printable

BLOCK_ROWS, BLOCK_BYTES = 64, 1 << 26


@dataclass(frozen=True)
class Source:
    """A checked source: `dataset()` opens it in Ray, `rows` turns its batches into rows.

    `num_inputs` is None when it is not known in advance. `rejects` has (uri, reason) of unreadable files.
    `num_files` counts every file below the source, `num_word_files` those with words about images, `ignored`
    those that are not read, by their ending or what hides them. `report` is added to the job's report.
    """

    kind: str
    label: str
    num_inputs: int | None
    dataset: Callable[[], ray.data.Dataset]
    rows: Callable[[pa.Table], Iterable[SourceRow]]
    rejects: list[tuple[str, str]] = field(default_factory=list)
    num_files: int = 0
    num_word_files: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    report: dict[str, Any] = field(default_factory=dict)


# What the readers of files yield: one row per image, or per other file (`ignored`).
ROW_SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "uri": pa.string(),
        "bytes": pa.binary(),
        "error": pa.string(),
        "ignored": pa.bool_(),
        "caption": pa.string(),
        "detailed_caption": pa.string(),
        "tags": pa.list_(pa.string()),
    }
)


def file_row(
    path: str,
    uri: str,
    data: bytes = b"",
    text: ImageText | None = None,
    error: str = "",
    ignored: bool = False,
) -> dict[str, Any]:
    """A row of `ROW_SCHEMA`; without bytes if the file or its words have an error."""
    text = text or ImageText()
    error = error or text.error
    return {
        "path": printable(path),
        "uri": printable(uri),
        "bytes": b"" if error else data,
        "error": printable(error),
        "ignored": ignored,
        "caption": text.caption,
        "detailed_caption": text.detailed_caption,
        "tags": list(text.tags),
    }


def blocks(rows: Iterable[dict[str, Any]]) -> Iterator[pa.Table]:
    """The rows in tables of `ROW_SCHEMA`, each with few rows and bytes: an Arrow array holds 2 GiB."""
    block, size = [], 0
    for row in rows:
        block.append(row)
        size += len(row["bytes"])
        if len(block) >= BLOCK_ROWS or size >= BLOCK_BYTES:
            yield pa.Table.from_pylist(block, ROW_SCHEMA)
            block, size = [], 0
    if block:
        yield pa.Table.from_pylist(block, ROW_SCHEMA)


def text_of(row: Mapping[str, Any]) -> ImageText:
    """The words of a row of `ROW_SCHEMA`."""
    return ImageText(row["caption"], row["detailed_caption"], tuple(row["tags"]))


def source_rows(batch: pa.Table) -> Iterator[SourceRow]:
    """Rows of `ROW_SCHEMA` as rows of a source."""
    for row in batch.to_pylist():
        yield SourceRow(row["uri"], row["bytes"], text_of(row), row["error"], ignored=row["ignored"])


def label_of(config: IngestConfig, location: Location) -> str:
    """The value of the images' column `source`."""
    return config.label or PurePosixPath(location.path).name


def text_columns(config: IngestConfig) -> TextColumns:
    """The columns that hold captions and tags."""
    return TextColumns(config.caption_column, config.tag_columns)


def read_resources(stage: Stage) -> dict[str, Any]:
    """The decoding stage's resources: Ray then fuses reading with it, and bytes stay in one process."""
    return {"num_cpus": stage.num_cpus, "concurrency": stage.max_actors}


def required(found: list, config: IngestConfig, what: str) -> list:
    """The files found. Raises UserError when there are none."""
    if not found:
        raise UserError(
            f"source {shown(config.source)} has no {what}; choose another --kind or another --source."
        )
    return found
