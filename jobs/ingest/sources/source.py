"""What every kind of source is turned into: a Ray dataset, with a function that turns its batches into rows.

Everything that can be checked without reading images is checked before any work starts.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import ray.data

from cluster.errors import UserError
from cluster.profile import Stage
from jobs.ingest.config import IngestConfig
from jobs.ingest.prepare import SourceRow
from jobs.ingest.sources.image_text import TextColumns
from jobs.ingest.sources.listing import Location


@dataclass(frozen=True)
class Source:
    """A checked source: `dataset()` opens it in Ray, `rows` turns its batches into rows.

    `num_inputs` is None when it is not known in advance. `rejects` has (uri, reason) of unreadable files.
    """

    kind: str
    label: str
    num_inputs: int | None
    dataset: Callable[[], ray.data.Dataset]
    rows: Callable[[pa.Table], Iterable[SourceRow]]
    rejects: list[tuple[str, str]] = field(default_factory=list)


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
        raise UserError(f"source '{config.source}' has no {what}; choose another --kind or another --source.")
    return found
