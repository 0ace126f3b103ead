"""Opens a source of any kind as a Ray dataset, with a function that turns its batches into rows.

Everything that can be checked without reading images is checked here, before any work starts.
"""

import json
import math
import posixpath
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import ray.data
from pyarrow import parquet

from actors.images import UnusableImage, image_id, read_uri
from cluster.compat.ray_data import read_lance
from cluster.errors import UserError
from cluster.profile import Stage
from jobs.ingest import listing
from jobs.ingest.config import IngestConfig
from jobs.ingest.image_text import ImageText, TextColumns, read_text
from jobs.ingest.listing import METADATA_NAMES, Location
from jobs.ingest.metadata import Metadata, read_metadata
from jobs.ingest.prepare import SourceRow
from jobs.ingest.readers import ImageFiles, TarSamples


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


def open_source(config: IngestConfig, decode: Stage) -> Source:
    """Check the source and open it. Raises UserError when it is missing, empty or malformed."""
    location = listing.locate(config.source)
    files = listing.files_below(location)
    kind = config.kind or listing.kind_of(location, files, config.source)
    opened = {"folder": _folder, "parquet": _parquet, "webdataset": _webdataset, "lance": _lance}[kind]
    return opened(config, location, files, decode)


def _label(config: IngestConfig, location: Location) -> str:
    return config.label or PurePosixPath(location.path).name


def _text_columns(config: IngestConfig) -> TextColumns:
    return TextColumns(config.caption_column, config.tag_columns)


def _read_resources(stage: Stage) -> dict[str, Any]:
    """The decoding stage's resources: Ray then fuses reading with it, and bytes stay in one process."""
    return {"num_cpus": stage.num_cpus, "concurrency": stage.max_actors}


def _required(found: list, config: IngestConfig, what: str) -> list:
    if not found:
        raise UserError(f"source '{config.source}' has no {what}; choose another --kind or another --source.")
    return found


# --- a folder of image files


def _folder(config: IngestConfig, location: Location, files: list[tuple[str, int]], decode: Stage) -> Source:
    found = _required(listing.images_of(files), config, "image files")
    problems = {path: listing.problem(path, size) for path, size in found}
    good = [file for file in found if not problems[file[0]]]
    rejects = [(location.uri(listing.printable(path)), reason) for path, reason in problems.items() if reason]
    num_tasks = max(1, math.ceil(len(good) / decode.batch_size))  # about one batch each

    def dataset() -> ray.data.Dataset:
        reader = ImageFiles(location.filesystem, good)
        return ray.data.read_datasource(reader, override_num_blocks=num_tasks, **_read_resources(decode))

    metadata = _folder_metadata(config, location, files)
    rows = partial(folder_rows, location=location, metadata=metadata)
    return Source("folder", _label(config, location), len(found), dataset, rows, rejects)


def _folder_metadata(
    config: IngestConfig, location: Location, files: list[tuple[str, int]]
) -> Metadata | None:
    """The table that the config names, or else the folder's own if it has one."""
    if config.metadata:
        table = listing.locate(config.metadata)
        return read_metadata(table.filesystem, table.path, _text_columns(config))
    paths = {path for path, _ in files}
    own = [path for name in METADATA_NAMES if (path := f"{location.path}/{name}") in paths]
    return read_metadata(location.filesystem, own[0], _text_columns(config)) if own else None


def folder_rows(batch: pa.Table, *, location: Location, metadata: Metadata | None) -> Iterator[SourceRow]:
    """Rows of `ImageFiles` with the text of the metadata table."""
    root = location.path.rstrip("/") + "/"
    for row in batch.to_pylist():
        text = metadata.text_of(row["path"].removeprefix(root)) if metadata else ImageText()
        yield SourceRow(location.uri(row["path"]), row["bytes"], text, row["error"])


# --- WebDataset tars


def _webdataset(
    config: IngestConfig, location: Location, files: list[tuple[str, int]], decode: Stage
) -> Source:
    tars = _required(listing.tars_of(files), config, "tars")

    def dataset() -> ray.data.Dataset:
        reader = TarSamples(location.filesystem, tars)
        return ray.data.read_datasource(reader, override_num_blocks=len(tars), **_read_resources(decode))

    rows = partial(tar_rows, prefix=location.prefix, columns=_text_columns(config))
    return Source("webdataset", _label(config, location), None, dataset, rows)


def tar_rows(batch: pa.Table, *, prefix: str, columns: TextColumns) -> Iterator[SourceRow]:
    """Rows of `TarSamples`."""
    for row in batch.to_pylist():
        text = read_text(json.loads(row["metadata"]), columns)
        yield SourceRow(prefix + row["path"], row["bytes"], text, row["error"])


# --- tables: Parquet and Lance


def _parquet(config: IngestConfig, location: Location, files: list[tuple[str, int]], decode: Stage) -> Source:
    found = _required(listing.parquet_of(files), config, "Parquet files")
    good, rejects, columns, num_rows = [], [], [], 0
    for path, _ in found:
        try:
            footer = parquet.read_metadata(path, filesystem=location.filesystem)
        except (OSError, pa.ArrowException) as error:
            rejects.append((location.uri(path), f"not a Parquet file: {error}"))
            continue
        columns = table_columns(footer.schema.to_arrow_schema(), config, location.uri(path))
        good.append(path)
        num_rows += footer.num_rows
    _required(good, config, "Parquet file that can be read")

    def dataset() -> ray.data.Dataset:
        table = ray.data.read_parquet(
            good,
            filesystem=location.filesystem,
            include_paths=True,
            partitioning=None,
            **_read_resources(decode),
        )
        return table.select_columns([*columns, "path"])

    rows = partial(table_rows, location=location, config=config)
    return Source("parquet", _label(config, location), num_rows, dataset, rows, rejects)


def _lance(config: IngestConfig, location: Location, _files: list[tuple[str, int]], decode: Stage) -> Source:
    import lance

    address = location.uri(location.path)
    try:
        table = lance.dataset(address)
    except (OSError, ValueError) as error:
        raise UserError(
            f"source '{config.source}' is not a Lance table ({error}): choose another --kind or "
            "another --source."
        ) from error
    columns = table_columns(table.schema, config, address)
    num_rows = table.count_rows()

    def dataset() -> ray.data.Dataset:
        return read_lance(address, columns, num_cpus=decode.num_cpus, num_tasks=decode.max_actors)

    rows = partial(table_rows, location=location, config=config)
    return Source("lance", _label(config, location), num_rows, dataset, rows)


def table_columns(schema: pa.Schema, config: IngestConfig, address: str) -> list[str]:
    """The columns to read. Raises UserError when bytes and addresses are both missing, or of a wrong type."""
    data, uri = config.bytes_column, config.uri_column
    if data not in schema.names and uri not in schema.names:
        raise UserError(
            f"'{address}' has neither a column '{data}' nor '{uri}', only {', '.join(schema.names)}: name "
            "the column of the images with --bytes-column or --uri-column."
        )
    for name, fits, content, option in (
        (data, _is_binary, "a file's bytes", "--bytes-column"),
        (uri, _is_string, "text", "--uri-column"),
    ):
        if name in schema.names and not fits(schema.field(name).type):
            raise UserError(
                f"column '{name}' of '{address}' holds {schema.field(name).type}, not {content}: name "
                f"another column with {option}."
            )
    columns = (data, uri, *_text_columns(config).names())
    return [name for name in dict.fromkeys(columns) if name in schema.names]


def _is_binary(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):  # a Hugging Face image column: {bytes, path}
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def table_rows(batch: pa.Table, *, location: Location, config: IngestConfig) -> Iterator[SourceRow]:
    """Rows of a Parquet or Lance table; a row without bytes is read from its address."""
    for row in batch.to_pylist():
        text = read_text(row, _text_columns(config))
        home = location.uri(row.get("path") or location.path)
        address, data = row.get(config.uri_column) or "", row.get(config.bytes_column)
        data = data.get("bytes") if isinstance(data, dict) else data
        if data is not None:
            yield SourceRow(address or f"{home}#{image_id(data)[:16]}", data, text)
        elif address:
            yield _read_address(address, home, text)
        else:
            error = f"neither column '{config.bytes_column}' nor '{config.uri_column}' has a value"
            yield SourceRow(f"{home}#null", b"", text, error)


def _read_address(address: str, home: str, text: ImageText) -> SourceRow:
    """Read an image file; a relative address is resolved against the folder of its table `home`."""
    uri = address if "://" in address else posixpath.join(posixpath.dirname(home), address)
    try:
        return SourceRow(uri, read_uri(uri), text)
    except UnusableImage as error:
        return SourceRow(uri, b"", text, str(error))
