"""Tables of images: Parquet files and Lance tables."""

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data
from pyarrow import parquet

from actors.images import UnusableImage, read_uri
from cluster.compat.ray_data import FileReader, read_lance
from cluster.errors import UserError, shown
from cluster.files import open_seekable
from cluster.profile import Stage
from cluster.table_files import listed, python_rows, require_once, text
from cluster.text_files import one_line
from jobs.ingest.config import IngestConfig
from jobs.ingest.prepare import SourceRow
from jobs.ingest.sources import listing
from jobs.ingest.sources.image_text import ImageText, read_text
from jobs.ingest.sources.listing import Location
from jobs.ingest.sources.source import (
    Source,
    blocks,
    file_row,
    label_of,
    read_resources,
    required,
    source_rows,
    text_columns,
)

BATCH_ROWS = 64
PATH = "path"  # the file's name in a Hugging Face image {bytes, path}, or a column of a list of files
ROW_ID = "_rowid"  # Lance's number of a row


class ParquetRows(FileReader):
    """Rows of `ROW_SCHEMA` from Parquet files; each file may have columns and types of its own."""

    def __init__(self, location: Location, files: Sequence[tuple[str, int]], config: IngestConfig) -> None:
        super().__init__(location.filesystem, files)
        self.location, self.config = location, config

    def read(self, path: str) -> Iterator[pa.Table]:
        """The rows of one file; one row with the reason for each row group that cannot be read."""
        home = self.location.uri(path)
        try:
            with open_seekable(self.filesystem, path) as stream:
                yield from self._row_groups(parquet.ParquetFile(stream), home)
        except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: the file has changed since
            yield from blocks([file_row("", home, error=f"cannot be opened: {one_line(str(error))}")])

    def _row_groups(self, file: parquet.ParquetFile, home: str) -> Iterator[pa.Table]:
        columns = table_columns(file.schema_arrow, self.config, home)
        first = 0
        for group in range(file.num_row_groups):
            done = first
            try:
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns):
                    numbers = range(done, done + batch.num_rows)
                    rows = table_rows(batch, numbers, home=home, config=self.config)
                    yield from blocks(file_row("", row.uri, row.data, row.text, row.error) for row in rows)
                    done += batch.num_rows
            except (OSError, pa.ArrowException) as error:
                reason = f"the rows of this group are damaged from {done} on: {one_line(str(error))}"
                yield from blocks([file_row("", f"{home}#{done}", error=reason)])
            first += file.metadata.row_group(group).num_rows


def open_parquet(
    config: IngestConfig, location: Location, files: list[tuple[str, int]], decode: Stage
) -> Source:
    """Check Parquet files, by their footers. Raises UserError when none can be read."""
    found = required(listing.parquet_of(files), config, "Parquet files")
    good, rejects, num_rows, failure = [], [], 0, None
    for path, size in found:
        try:
            with open_seekable(location.filesystem, path) as stream:
                footer = parquet.ParquetFile(stream)
                table_columns(footer.schema_arrow, config, location.uri(path))
                num_rows += footer.metadata.num_rows
            good.append((path, size))
        except UserError as error:
            failure = failure or error
            rejects.append((location.uri(path), str(error)))
        except (OSError, pa.ArrowException) as error:
            rejects.append((location.uri(path), f"not a Parquet file: {one_line(str(error))}"))
    if failure and not good:
        raise failure
    required(good, config, "Parquet file that can be read")

    def dataset() -> ray.data.Dataset:
        reader = ParquetRows(location, good, config)
        return ray.data.read_datasource(reader, override_num_blocks=len(good), **read_resources(decode))

    return Source(
        "parquet", label_of(config, location), num_rows + len(rejects), dataset, source_rows, rejects
    )


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
            f"source '{config.source}' is not a Lance table ({one_line(str(error))}): choose another "
            "--kind or another --source."
        ) from error
    columns = table_columns(table.schema, config, address)
    num_rows = table.count_rows()

    def dataset() -> ray.data.Dataset:
        return read_lance(
            address, columns, num_cpus=decode.num_cpus, num_tasks=decode.max_actors, row_ids=True
        )

    rows = partial(lance_rows, home=address, config=config)
    return Source("lance", label_of(config, location), num_rows, dataset, rows)


def lance_rows(batch: pa.Table, *, home: str, config: IngestConfig) -> Iterator[SourceRow]:
    """Rows of a Lance table with its column `ROW_ID`."""
    yield from table_rows(batch, batch[ROW_ID].to_numpy().tolist(), home=home, config=config)


def table_columns(schema: pa.Schema, config: IngestConfig, address: str) -> list[str]:
    """The columns to read. Raises UserError when bytes and addresses are both missing, or of a wrong type."""
    data, uri = config.bytes_column, config.uri_column
    if data not in schema.names and uri not in schema.names:
        raise UserError(
            f"'{address}' has neither a column '{data}' nor '{uri}', only {listed(schema.names)}: name "
            "the column of the images with --bytes-column or --uri-column."
        )
    wanted = list(dict.fromkeys((data, uri, *text_columns(config).names(), PATH)))
    try:
        require_once(schema.names, wanted)
    except ValueError as error:
        raise UserError(f"'{address}' cannot be read: {error}; rename one of them.") from None
    for name, fits, content, option in (
        (data, _is_binary, "a file's bytes", "--bytes-column"),
        (uri, _is_string, "text", "--uri-column"),
    ):
        if name in schema.names and not fits(schema.field(name).type):
            raise UserError(
                f"column '{name}' of '{address}' holds {schema.field(name).type}, not {content}: name "
                f"another column with {option}."
            )
    return [name for name in wanted if name in schema.names]


def _is_binary(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):  # a Hugging Face image column: {bytes, path}
        return kind.get_field_index("bytes") >= 0
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return kind.value_type == pa.uint8()
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kind in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.null()) or (
        pa.types.is_fixed_size_binary(kind)
    )


def _is_string(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kind in (pa.string(), pa.large_string(), pa.string_view(), pa.null())


def table_rows(
    batch: pa.Table | pa.RecordBatch, numbers: Iterable[int], *, home: str, config: IngestConfig
) -> Iterator[SourceRow]:
    """Rows of the table at the address `home`; a row without bytes is read from its address.

    numbers: the rows' numbers in the table; they name the rows without an address.
    """
    for number, (row, error) in zip(numbers, python_rows(batch), strict=True):
        yield _table_row(row, error, f"{home}#{number}", home, config)


def _table_row(row: dict[str, Any], error: str, place: str, home: str, config: IngestConfig) -> SourceRow:
    cell = row.get(config.bytes_column)
    struct = cell if isinstance(cell, dict) else {"bytes": cell}
    words = read_text(row, text_columns(config))
    try:
        address, path = text(row.get(config.uri_column)), text(struct.get(PATH))
        data = None if struct["bytes"] is None else bytes(struct["bytes"])
    except (TypeError, ValueError) as failure:  # a list of bytes with null in it, an address that is not text
        address, path, data = "", "", None
        error = error or f"its bytes or its address cannot be read: {failure}"
    if error or data is not None:
        return SourceRow(address or place, data or b"", words, error)
    if address := address or path or (row[PATH] if isinstance(row.get(PATH), str) else ""):
        return _read_address(address, home, words)
    error = f"neither column '{config.bytes_column}' nor '{config.uri_column}' has a value"
    return SourceRow(place, b"", words, error)


def _read_address(address: str, home: str, words: ImageText) -> SourceRow:
    """Read an image file; a relative address is resolved against the folder of its table `home`."""
    uri = address if "://" in address else posixpath.join(posixpath.dirname(home), address)
    if uri.startswith("//"):
        reason = f"the address {shown(address)} names a host without a scheme: write s3://, gs:// or a path"
        return SourceRow(uri, b"", words, reason)
    try:
        return SourceRow(uri, read_uri(uri), words)
    except UnusableImage as error:
        return SourceRow(uri, b"", words, str(error))
