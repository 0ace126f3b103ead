"""Lists the files at a path or filesystem URI, and recognises the kind of source."""

import os
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
from pyarrow import fs

from actors.images.files import SUFFIXES
from cluster.errors import UserError

MAX_FILE_BYTES = 1 << 29
FILE_SCHEMA = pa.schema({"path": pa.string(), "bytes": pa.binary(), "error": pa.string()})
PARQUET_EXTENSIONS = frozenset(("parquet", "pq"))
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
METADATA_NAMES = ("metadata.parquet", "metadata.csv", "metadata.jsonl")


@dataclass(frozen=True)
class Location:
    """A path on a filesystem. `prefix` + path is the address stored in the tables."""

    filesystem: fs.FileSystem
    path: str
    prefix: str
    is_file: bool

    def uri(self, path: str) -> str:
        """The address of a path on the same filesystem."""
        return self.prefix + path


def locate(source: str) -> Location:
    """Resolve a local path or filesystem URI. Raises UserError when it is missing or unreachable."""
    try:
        if "://" in source:
            filesystem, path = fs.FileSystem.from_uri(source)
        else:
            filesystem, path = fs.LocalFileSystem(), os.path.abspath(source)
        found = filesystem.get_file_info(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"source '{source}' cannot be reached: {error}") from error
    if found.type == fs.FileType.NotFound:
        raise UserError(
            f"source '{source}' does not exist; give a folder of images, Parquet files, WebDataset tars "
            "or a Lance table, as a path or a URI such as s3://bucket/folder."
        )
    local = isinstance(filesystem, fs.LocalFileSystem)
    prefix = "" if local else source.partition("://")[0] + "://"
    return Location(filesystem, path.rstrip("/") or "/", prefix, found.type == fs.FileType.File)


def files_below(location: Location) -> list[tuple[str, int]]:
    """(path, size in bytes) of every file at or below the location, sorted by path."""
    if location.is_file:
        return [(location.path, location.filesystem.get_file_info(location.path).size)]
    if isinstance(location.filesystem, fs.LocalFileSystem):
        # Arrow's own listing fails on names that are not UTF-8.
        paths = (os.path.join(root, name) for root, _, names in os.walk(location.path) for name in names)
        return sorted((path, os.path.getsize(path)) for path in paths if os.path.isfile(path))
    infos = location.filesystem.get_file_info(fs.FileSelector(location.path, recursive=True))
    return sorted((info.path, info.size) for info in infos if info.type == fs.FileType.File)


def kind_of(location: Location, files: list[tuple[str, int]], source: str) -> str:
    """`folder`, `parquet`, `webdataset` or `lance`. Raises UserError when the files are none of these."""
    if any(f"{location.path}/_versions/" in path for path, _ in files):
        return "lance"
    for kind, select in (("folder", images_of), ("webdataset", tars_of), ("parquet", parquet_of)):
        if select(files):
            return kind
    raise UserError(
        f"source '{source}' has no images: none of its files ends in tar, parquet or an image's extension "
        f"({', '.join(sorted(SUFFIXES))})."
    )


def images_of(files: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The files with the extension of an image."""
    return [(path, size) for path, size in files if extension(path) in SUFFIXES]


def tars_of(files: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The files with the ending of a tar."""
    return [(path, size) for path, size in files if path.lower().endswith(TAR_SUFFIXES)]


def parquet_of(files: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The Parquet files, except metadata tables of a folder."""
    parquet = [file for file in files if extension(file[0]) in PARQUET_EXTENSIONS]
    return [file for file in parquet if os.path.basename(file[0]) not in METADATA_NAMES]


def problem(path: str, size: int) -> str:
    """Why the file is rejected unread: it is too large, or its name is not UTF-8; "" if neither."""
    if size > MAX_FILE_BYTES:
        return f"the file has {size:,} bytes, more than the allowed {MAX_FILE_BYTES:,}"
    return "" if printable(path) == path else "the file's name is not UTF-8"


def extension(path: str) -> str:
    """The last suffix in lower case without its dot: `jpg` for `a/b.JPG`."""
    return PurePosixPath(path).suffix.lower().removeprefix(".")


def printable(path: str) -> str:
    """The path as valid text: bytes that are not UTF-8 become `\\xff` and the like."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
