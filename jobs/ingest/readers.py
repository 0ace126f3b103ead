"""Ray Data readers that no single bad file can stop: what cannot be read becomes a row with the reason.

`ray.data.read_binary_files` and `read_webdataset` end the job at the first file that is gone or broken; these
two use the same base (listing, retries, filesystems) and differ in that alone.
"""

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
from pyarrow import fs
from ray.data.datasource import FileBasedDatasource
from ray.data.datasource.file_meta_provider import DefaultFileMetadataProvider

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
SAMPLE_SCHEMA = pa.schema({**{f.name: f.type for f in FILE_SCHEMA}, "words": pa.string()})


def extension(path: str) -> str:
    """The last suffix in lower case without its dot; of `a/b.JPG` it is `jpg`."""
    return PurePosixPath(path).suffix.lower().removeprefix(".")


class KnownSizes(DefaultFileMetadataProvider):
    """Paths and sizes that were listed already, so that Ray does not ask for each of them again."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = sizes

    def expand_paths(self, paths: list[str], *_args: Any, **_kwargs: Any) -> Iterator[tuple[str, int]]:
        """The listing, as it was given."""
        yield from zip(paths, self.sizes, strict=True)


class _Unreadable:
    """Stands in for a file that could not be opened."""

    def __init__(self, error: str) -> None:
        self.error = error

    def __enter__(self) -> "_Unreadable":
        return self

    def __exit__(self, *_error: object) -> None:
        pass


class ImageFiles(FileBasedDatasource):
    """One row a file: `path`, `bytes`, `error` ("" when it was read)."""

    def __init__(self, filesystem: fs.FileSystem, files: Sequence[tuple[str, int]]) -> None:
        """`files`: (path, bytes) as listed."""
        paths, sizes = [path for path, _ in files], [size for _, size in files]
        super().__init__(paths, filesystem=filesystem, meta_provider=KnownSizes(sizes))

    def _rows_per_file(self) -> int:
        return 1

    def _open_input_source(self, filesystem: Any, path: str, **open_args: Any) -> Any:
        try:
            return super()._open_input_source(filesystem, path, **open_args)
        except OSError as error:
            return _Unreadable(f"cannot be opened: {error}")

    def _read_stream(self, f: Any, path: str) -> Iterator[pa.Table]:
        data, error = b"", getattr(f, "error", "")
        if not error:
            try:
                data = f.readall()
            except OSError as broken:
                error = f"cannot be read: {broken}"
        yield pa.Table.from_pylist([{"path": path, "bytes": data, "error": error}], FILE_SCHEMA)


class TarSamples(ImageFiles):
    """One row a WebDataset sample: `path` (tar#member), `bytes`, `error`, `words` (a JSON object).

    A sample is a run of members whose names agree up to the first dot. Where a tar breaks off, what came
    before is kept and one row says why it ended.
    """

    def _rows_per_file(self) -> None:
        return None

    def _read_stream(self, f: Any, path: str) -> Iterator[pa.Table]:
        rows: list[dict] = []
        for row in _samples(f, path):
            rows.append(row)
            if len(rows) == TAR_BLOCK_ROWS:
                yield pa.Table.from_pylist(rows, SAMPLE_SCHEMA)
                rows = []
        yield pa.Table.from_pylist(rows, SAMPLE_SCHEMA)


def _samples(stream: Any, path: str) -> Iterator[dict]:
    sample: dict[str, Any] = {}
    try:
        if hasattr(stream, "error"):
            raise OSError(stream.error)
        for name, data in _members(stream):
            key, suffix = _key(name), extension(name)
            if sample and sample["key"] != key:
                yield _row(sample, path)
                sample = {}
            sample = sample or {"key": key, "words": {}}
            _add_member(sample, name, suffix, data)
    except (tarfile.TarError, OSError, EOFError) as error:
        yield {"path": path, "bytes": b"", "error": f"the tar breaks off: {error}", "words": "{}"}
    if sample:
        yield _row(sample, path)


def _members(stream: Any) -> Iterator[tuple[str, bytes | None]]:
    """(name, bytes) of each file in the tar; None for one that is too large to hold."""
    with tarfile.open(fileobj=stream, mode="r|*") as tar:
        for member in tar:
            if member.isreg():
                small = member.size <= MAX_FILE_BYTES
                yield member.name, tar.extractfile(member).read() if small else None


def _key(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def _add_member(sample: dict, name: str, suffix: str, data: bytes | None) -> None:
    if suffix in IMAGE_EXTENSIONS and "name" not in sample:
        sample.update(name=name, bytes=data)
    elif suffix in CAPTION_EXTENSIONS and data:
        sample["words"]["caption"] = data.decode("utf-8", "replace")
    elif suffix == "json" and data:
        sample["words"] |= _json_object(data)


def _json_object(data: bytes) -> dict:
    try:
        value = json.loads(data)
    except ValueError:
        return {}  # a caption that cannot be read is no reason to lose the image
    return value if isinstance(value, dict) else {}


def _row(sample: dict, path: str) -> dict:
    error = ""
    if "name" not in sample:
        error = "the sample holds no image"
    elif sample["bytes"] is None:
        error = f"more than the allowed {MAX_FILE_BYTES:,} bytes"
    uri = f"{path}#{sample.get('name', sample['key'])}"
    data = sample.get("bytes") or b""
    return {"path": uri, "bytes": data, "error": error, "words": json.dumps(sample["words"])}
