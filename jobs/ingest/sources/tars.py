"""WebDataset tars."""

import itertools
import json
import tarfile
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data

from actors.images.files import SUFFIXES
from cluster.compat.ray_data import FileReader, Unreadable
from cluster.profile import Stage
from jobs.ingest.config import IngestConfig
from jobs.ingest.prepare import SourceRow
from jobs.ingest.sources import listing
from jobs.ingest.sources.image_text import TextColumns, read_text
from jobs.ingest.sources.listing import FILE_SCHEMA, MAX_FILE_BYTES, Location, extension
from jobs.ingest.sources.source import Source, label_of, read_resources, required, text_columns

CAPTION_EXTENSIONS = frozenset(["txt", "text", "caption"])
SAMPLE_SCHEMA = pa.schema({**{f.name: f.type for f in FILE_SCHEMA}, "metadata": pa.string()})
TAR_BLOCK_ROWS = 64


class TarSamples(FileReader):
    """One row per WebDataset sample: `path` (tar#member), `bytes`, `error`, `metadata` (a JSON object).

    A sample is a sequence of members whose names agree up to the first dot. A truncated tar yields
    its complete samples, and one more row with the error.
    """

    def read(self, stream: Any | Unreadable, path: str) -> Iterator[pa.Table]:
        """The rows of one tar, in tables of `TAR_BLOCK_ROWS`."""
        samples = _samples(stream, path)
        while rows := list(itertools.islice(samples, TAR_BLOCK_ROWS)):
            yield pa.Table.from_pylist(rows, SAMPLE_SCHEMA)


def _samples(stream: Any | Unreadable, path: str) -> Iterator[dict]:
    sample: dict[str, Any] = {}
    try:
        for name, data in _members(stream):
            key, suffix = _key(name), extension(name)
            if sample and sample["key"] != key:
                yield _row(sample, path)
                sample = {}
            sample = sample or {"key": key, "metadata": {}}
            _add_member(sample, name, suffix, data)
    except (tarfile.TarError, OSError, EOFError) as error:
        yield {
            "path": path,
            "bytes": b"",
            "error": f"the tar is truncated or damaged: {error}",
            "metadata": "{}",
        }
    if sample:
        yield _row(sample, path)


def _members(stream: Any | Unreadable) -> Iterator[tuple[str, bytes | None]]:
    """(name, bytes) of each file in the tar; None instead of bytes above `MAX_FILE_BYTES`."""
    if isinstance(stream, Unreadable):
        raise OSError(stream.error)
    with tarfile.open(fileobj=stream, mode="r|*") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isreg() else None
            if file is not None:
                yield member.name, file.read() if member.size <= MAX_FILE_BYTES else None


def _key(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def _add_member(sample: dict, name: str, suffix: str, data: bytes | None) -> None:
    if suffix in SUFFIXES and "name" not in sample:
        sample.update(name=name, bytes=data)
    elif suffix in CAPTION_EXTENSIONS and data:
        sample["metadata"]["caption"] = data.decode("utf-8", "replace")
    elif suffix == "json" and data:
        sample["metadata"] |= _json_object(data)


def _json_object(data: bytes) -> dict:
    try:
        value = json.loads(data)
    except ValueError:
        return {}  # an image is not rejected for a malformed caption
    return value if isinstance(value, dict) else {}


def _row(sample: dict, path: str) -> dict:
    error = ""
    if "name" not in sample:
        error = "the sample has no image"
    elif sample["bytes"] is None:
        error = f"the file has more than the allowed {MAX_FILE_BYTES:,} bytes"
    uri = f"{path}#{sample.get('name', sample['key'])}"
    data = sample.get("bytes") or b""
    return {"path": uri, "bytes": data, "error": error, "metadata": json.dumps(sample["metadata"])}


def open_webdataset(
    config: IngestConfig, location: Location, files: list[tuple[str, int]], decode: Stage
) -> Source:
    """Check a folder of tars."""
    tars = required(listing.tars_of(files), config, "tars")

    def dataset() -> ray.data.Dataset:
        reader = TarSamples(location.filesystem, tars)
        return ray.data.read_datasource(reader, override_num_blocks=len(tars), **read_resources(decode))

    rows = partial(tar_rows, prefix=location.prefix, columns=text_columns(config))
    return Source("webdataset", label_of(config, location), None, dataset, rows)


def tar_rows(batch: pa.Table, *, prefix: str, columns: TextColumns) -> Iterator[SourceRow]:
    """Rows of `TarSamples`."""
    for row in batch.to_pylist():
        text = read_text(json.loads(row["metadata"]), columns)
        yield SourceRow(prefix + row["path"], row["bytes"], text, row["error"])
