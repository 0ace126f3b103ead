"""A folder of image files, with a table of captions beside them."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data

from cluster.compat.ray_data import FileReader, Unreadable
from cluster.profile import Stage
from jobs.ingest.config import IngestConfig
from jobs.ingest.prepare import SourceRow
from jobs.ingest.sources import listing
from jobs.ingest.sources.image_text import ImageText
from jobs.ingest.sources.listing import FILE_SCHEMA, METADATA_NAMES, Location
from jobs.ingest.sources.metadata import Metadata, read_metadata
from jobs.ingest.sources.source import Source, label_of, read_resources, required, text_columns


class ImageFiles(FileReader):
    """One row per file: `path`, `bytes`, `error` ("" if it was read)."""

    rows_per_file = 1

    def read(self, stream: Any | Unreadable, path: str) -> Iterator[pa.Table]:
        """One row with the file's bytes, or with the reason why there are none."""
        data, error = b"", ""
        if isinstance(stream, Unreadable):
            error = stream.error
        else:
            try:
                data = stream.readall()
            except OSError as failure:
                error = f"cannot be read: {failure}"
        yield pa.Table.from_pylist([{"path": path, "bytes": data, "error": error}], FILE_SCHEMA)


def open_folder(
    config: IngestConfig, location: Location, files: list[tuple[str, int]], decode: Stage
) -> Source:
    """Check a folder of image files."""
    found = required(listing.images_of(files), config, "image files")
    problems = {path: listing.problem(path, size) for path, size in found}
    good = [file for file in found if not problems[file[0]]]
    rejects = [(location.uri(listing.printable(path)), reason) for path, reason in problems.items() if reason]
    num_tasks = max(1, math.ceil(len(good) / decode.batch_size))  # about one batch each

    def dataset() -> ray.data.Dataset:
        reader = ImageFiles(location.filesystem, good)
        return ray.data.read_datasource(reader, override_num_blocks=num_tasks, **read_resources(decode))

    metadata = _folder_metadata(config, location, files)
    rows = partial(folder_rows, location=location, metadata=metadata)
    return Source("folder", label_of(config, location), len(found), dataset, rows, rejects)


def _folder_metadata(
    config: IngestConfig, location: Location, files: list[tuple[str, int]]
) -> Metadata | None:
    """The table that the config names, or else the folder's own if it has one."""
    if config.metadata:
        table = listing.locate(config.metadata)
        return read_metadata(table.filesystem, table.path, text_columns(config))
    paths = {path for path, _ in files}
    own = [path for name in METADATA_NAMES if (path := f"{location.path}/{name}") in paths]
    return read_metadata(location.filesystem, own[0], text_columns(config)) if own else None


def folder_rows(batch: pa.Table, *, location: Location, metadata: Metadata | None) -> Iterator[SourceRow]:
    """Rows of `ImageFiles` with the text of the metadata table."""
    root = location.path.rstrip("/") + "/"
    for row in batch.to_pylist():
        text = metadata.text_of(row["path"].removeprefix(root)) if metadata else ImageText()
        yield SourceRow(location.uri(row["path"]), row["bytes"], text, row["error"])
