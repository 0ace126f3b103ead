"""The four kinds of source as one: a Ray dataset, and how batches become rows. All checked before work."""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath

import pyarrow as pa
import ray.data
from pyarrow import parquet

from actors.images import UnusableImage, image_id, read_uri
from cluster.errors import UserError
from cluster.profile import Stage
from jobs.ingest import listing
from jobs.ingest.config import IngestConfig
from jobs.ingest.listing import Place
from jobs.ingest.metadata import Metadata, find_metadata, read_metadata
from jobs.ingest.readers import ImageFiles, TarSamples
from jobs.ingest.stages import Raw
from jobs.ingest.words import Columns, Words, words_of


@dataclass(frozen=True)
class Source:
    """`dataset()` opens it in Ray, `rows` turns batches into raw rows, `rejects`: (uri, reason)."""

    kind: str
    label: str
    num_inputs: int | None
    dataset: Callable[[], ray.data.Dataset]
    rows: Callable[[pa.Table], Iterable[Raw]]
    rejects: list[tuple[str, str]] = field(default_factory=list)


def open_source(config: IngestConfig, decode: Stage) -> Source:
    """Check the source and say how to read it. Raises UserError when it is missing, empty or malformed."""
    place = listing.place_of(config.source)
    files = listing.files_below(place)
    kind = config.kind if config.kind != "auto" else listing.kind_of(place, files, config.source)
    opened = {"folder": _folder, "parquet": _parquet, "webdataset": _webdataset, "lance": _lance}[kind]
    return opened(config, place, files, decode)


def _label(config: IngestConfig, place: Place) -> str:
    return config.label or PurePosixPath(place.path).name


def _columns(config: IngestConfig) -> Columns:
    return Columns(config.caption_column, config.tag_columns)


def _tasks(num_items: int, stage: Stage) -> int:
    """Read tasks of about one batch each: small enough to stream, large enough to pay."""
    return max(1, math.ceil(num_items / stage.batch_size))


def _tasks_like(stage: Stage) -> dict:
    """Arguments equal to the decoding stage's, so that Ray fuses both and the files' bytes never travel."""
    return {"num_cpus": stage.num_cpus, "concurrency": stage.max_actors}


def _required(found: list, config: IngestConfig, what: str) -> list:
    if not found:
        raise UserError(
            f"source '{config.source}' holds no {what}; choose another --kind or another --source."
        )
    return found


# --- a folder of image files


def _folder(config: IngestConfig, place: Place, files: list[tuple[str, int]], decode: Stage) -> Source:
    found = _required(listing.images_of(files), config, "image files")
    bad = {path for path, size in found if listing.unreadable([(path, size)])}
    good = [file for file in found if file[0] not in bad]
    rejects = [(place.uri(path), reason) for path, reason in listing.unreadable(found)]
    metadata = _folder_metadata(config, place, files)

    def dataset() -> ray.data.Dataset:
        reader = ImageFiles(place.filesystem, good)
        return ray.data.read_datasource(
            reader, override_num_blocks=_tasks(len(good), decode), **_tasks_like(decode)
        )

    root = "" if place.is_file else place.path.rstrip("/") + "/"
    rows = partial(folder_rows, prefix=place.prefix, root=root, metadata=metadata)
    return Source("folder", _label(config, place), len(found), dataset, rows, rejects)


def _folder_metadata(config: IngestConfig, place: Place, files: list[tuple[str, int]]) -> Metadata | None:
    if config.metadata:
        table = listing.place_of(config.metadata)
        return read_metadata(table.filesystem, table.path, _columns(config))
    path = find_metadata(place, {path for path, _ in files})
    return read_metadata(place.filesystem, path, _columns(config)) if path else None


def folder_rows(batch: pa.Table, *, prefix: str, root: str, metadata: Metadata | None) -> Iterator[Raw]:
    """Rows of `ImageFiles` with the words of the metadata table."""
    for row in batch.to_pylist():
        words = metadata.words_at(row["path"].removeprefix(root)) if metadata else Words()
        yield Raw(prefix + row["path"], row["bytes"], words, row["error"])


# --- WebDataset tars


def _webdataset(config: IngestConfig, place: Place, files: list[tuple[str, int]], decode: Stage) -> Source:
    tars = _required(listing.tars_of(files), config, "tars")

    def dataset() -> ray.data.Dataset:
        reader = TarSamples(place.filesystem, tars)
        return ray.data.read_datasource(reader, override_num_blocks=len(tars), **_tasks_like(decode))

    rows = partial(tar_rows, prefix=place.prefix, columns=_columns(config))
    return Source("webdataset", _label(config, place), None, dataset, rows)


def tar_rows(batch: pa.Table, *, prefix: str, columns: Columns) -> Iterator[Raw]:
    """Rows of `TarSamples`."""
    for row in batch.to_pylist():
        words = words_of(json.loads(row["words"]), columns)
        yield Raw(prefix + row["path"], row["bytes"], words, row["error"])


# --- tables: Parquet and Lance


def _parquet(config: IngestConfig, place: Place, files: list[tuple[str, int]], decode: Stage) -> Source:
    found = _required(listing.parquet_of(files), config, "Parquet files")
    good, rejects, columns, num_rows = [], [], [], 0
    for path, _ in found:
        try:
            footer = parquet.read_metadata(path, filesystem=place.filesystem)
        except (OSError, pa.ArrowException) as error:
            rejects.append((place.uri(path), f"not a Parquet file: {error}"))
            continue
        columns = table_columns(footer.schema.to_arrow_schema(), config, place.uri(path))
        good.append(path)
        num_rows += footer.num_rows
    _required(good, config, "Parquet file that can be read")

    def dataset() -> ray.data.Dataset:
        table = ray.data.read_parquet(
            good, filesystem=place.filesystem, include_paths=True, partitioning=None, **_tasks_like(decode)
        )
        return table.select_columns([*columns, "path"])

    rows = partial(table_rows, place=place, config=config)
    return Source("parquet", _label(config, place), num_rows, dataset, rows, rejects)


def _lance(config: IngestConfig, place: Place, _files: list[tuple[str, int]], decode: Stage) -> Source:
    import lance
    import lance_ray

    address = place.uri(place.path)
    try:
        table = lance.dataset(address)
    except (OSError, ValueError) as error:
        raise UserError(f"source '{config.source}' is not a Lance table: {error}") from error
    columns = table_columns(table.schema, config, address)
    num_rows = table.count_rows()

    def dataset() -> ray.data.Dataset:
        return lance_ray.read_lance(
            address,
            columns=columns,
            concurrency=decode.max_actors,
            ray_remote_args={"num_cpus": decode.num_cpus},
        )

    rows = partial(table_rows, place=place, config=config)
    return Source("lance", _label(config, place), num_rows, dataset, rows)


def table_columns(schema: pa.Schema, config: IngestConfig, address: str) -> list[str]:
    """The columns to read. Raises UserError when there are neither bytes nor addresses, or a wrong type."""
    data, uri = config.bytes_column, config.uri_column
    if data not in schema.names and uri not in schema.names:
        raise UserError(
            f"'{address}' has neither a column '{data}' nor '{uri}'; it has {', '.join(schema.names)}: name "
            "one with --bytes-column or --uri-column."
        )
    if data in schema.names and not _is_binary(schema.field(data).type):
        raise UserError(
            f"column '{data}' of '{address}' holds {schema.field(data).type}, not a file's bytes."
        )
    if uri in schema.names and not _is_string(schema.field(uri).type):
        raise UserError(f"column '{uri}' of '{address}' holds {schema.field(uri).type}, not text.")
    wanted = (data, uri, *_columns(config).wanted())
    return [name for name in dict.fromkeys(wanted) if name in schema.names]


def _is_binary(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):  # Hugging Face's form of an image column: {bytes, path}
        return any(kind.field(index).name == "bytes" for index in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def table_rows(batch: pa.Table, *, place: Place, config: IngestConfig) -> Iterator[Raw]:
    """Rows of a Parquet or Lance table: the bytes themselves, or read from the address beside them."""
    for row in batch.to_pylist():
        words = words_of(row, _columns(config))
        home = place.uri(row.get("path") or place.path)
        address, data = row.get(config.uri_column) or "", row.get(config.bytes_column)
        data = data.get("bytes") if isinstance(data, dict) else data
        if data is None and not address:
            yield Raw(
                f"{home}#null", b"", words, f"neither '{config.bytes_column}' nor '{config.uri_column}'"
            )
        elif data is None:
            yield _from_address(_absolute(address, home), words)
        else:
            yield Raw(address or f"{home}#{image_id(data)[:16]}", data, words)


def _from_address(uri: str, words: Words) -> Raw:
    try:
        return Raw(uri, read_uri(uri), words)
    except UnusableImage as error:
        return Raw(uri, b"", words, str(error))


def _absolute(address: str, home: str) -> str:
    """A relative address counts from the folder of the table that names it."""
    if "://" in address or address.startswith("/"):
        return address
    return f"{home.rpartition('/')[0]}/{address}"
