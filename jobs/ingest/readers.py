"""Readers of image files and WebDataset tars: a file that cannot be read becomes a row with the reason.

`ray.data.read_binary_files` and `read_webdataset` fail the job at the first file that is missing or broken.
"""

import itertools
import json
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from cluster.compat.ray_data import FileReader, Unreadable

# fmt: off
IMAGE_EXTENSIONS = frozenset((
    "jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "dib", "tif", "tiff", "ppm", "pgm", "pnm",
    "avif", "jp2", "j2k",
))
# fmt: on
CAPTION_EXTENSIONS = frozenset(["txt", "text", "caption"])
MAX_FILE_BYTES = 1 << 29
TAR_BLOCK_ROWS = 64
FILE_SCHEMA = pa.schema({"path": pa.string(), "bytes": pa.binary(), "error": pa.string()})
SAMPLE_SCHEMA = pa.schema({**{f.name: f.type for f in FILE_SCHEMA}, "metadata": pa.string()})


def extension(path: str) -> str:
    """The last suffix in lower case without its dot: `jpg` for `a/b.JPG`."""
    return PurePosixPath(path).suffix.lower().removeprefix(".")


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
    if suffix in IMAGE_EXTENSIONS and "name" not in sample:
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
