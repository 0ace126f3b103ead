"""Opens users' files, which may be of any kind and may change at any time."""

import os
import stat
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import fs

MAX_FILE_BYTES = 1 << 29
CHUNK_BYTES = 1 << 22
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_file(filesystem: fs.FileSystem, path: str) -> BinaryIO | pa.NativeFile:
    """Open a regular file. Raises OSError, also for any other kind of file: opening a FIFO may never end."""
    if not isinstance(filesystem, fs.LocalFileSystem):
        return filesystem.open_input_stream(path)
    require_regular(os.stat(path))  # before the open: opening a device may have side effects
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        require_regular(os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def open_seekable(filesystem: fs.FileSystem, path: str) -> Any:
    """Open a file to read it at any position, as Parquet needs. Raises OSError as `open_file` does."""
    local = isinstance(filesystem, fs.LocalFileSystem)
    return open_file(filesystem, path) if local else filesystem.open_input_file(path)


def require_regular(status: os.stat_result) -> None:
    """Raise OSError unless this is the status of a regular file."""
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise OSError(f"it is {KINDS.get(kind, 'something else')}, not a file")


def read_file(filesystem: fs.FileSystem, path: str, limit: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of a file. Raises OSError, also above `limit` bytes."""
    chunks, size = [], 0
    with open_file(filesystem, path) as file:
        stream: Any = file
        while chunk := stream.read(CHUNK_BYTES):
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                raise OSError(too_large(limit))
    return b"".join(chunks)


def read_head(filesystem: fs.FileSystem, path: str, num_bytes: int) -> bytes:
    """The first bytes of a file. Raises OSError."""
    with open_file(filesystem, path) as file:
        stream: Any = file
        return stream.read(num_bytes) or b""


def too_large(limit: int = MAX_FILE_BYTES) -> str:
    """The reason why a larger file is not read."""
    return f"the file has more than the allowed {limit:,} bytes"
