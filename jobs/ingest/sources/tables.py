"""Tables of images: Parquet files and Lance tables."""

import posixpath
from collections.abc import Iterator
from functools import partial

import pyarrow as pa
import ray.data
from pyarrow import parquet

from actors.images import UnusableImage, image_id, read_uri
from cluster.compat.ray_data import read_lance
from cluster.errors import UserError
from cluster.profile import Stage
from jobs.ingest.config import IngestConfig
from jobs.ingest.prepare import SourceRow
from jobs.ingest.sources import listing
from jobs.ingest.sources.image_text import ImageText, read_text
from jobs.ingest.sources.listing import Location
from jobs.ingest.sources.source import Source, label_of, read_resources, required, text_columns


def open_parquet(
    config: IngestConfig, location: Location, files: list[tuple[str, int]], decode: Stage
) -> Source:
    """Check Parquet files, by their footers."""
    found = required(listing.parquet_of(files), config, "Parquet files")
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
    required(good, config, "Parquet file that can be read")

    def dataset() -> ray.data.Dataset:
        table = ray.data.read_parquet(
            good,
            filesystem=location.filesystem,
            include_paths=True,
            partitioning=None,
            **read_resources(decode),
        )
        return table.select_columns([*columns, "path"])

    rows = partial(table_rows, location=location, config=config)
    return Source("parquet", label_of(config, location), num_rows, dataset, rows, rejects)


def open_lance(
    config: IngestConfig, location: Location, _files: list[tuple[str, int]], decode: Stage
) -> Source:
    """Check a Lance table."""
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
    return Source("lance", label_of(config, location), num_rows, dataset, rows)


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
    columns = (data, uri, *text_columns(config).names())
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
        text = read_text(row, text_columns(config))
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
