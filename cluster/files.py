"""Opens files that belong to others: they may be anything, and may change at any time."""

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
    """Open a file for reading. Raises OSError, also unless it is a regular file: to open a FIFO may wait for ever."""
    if not isinstance(filesystem, fs.LocalFileSystem):
        return filesystem.open_input_stream(path)
    require_regular(os.stat(path))  # before it is opened: to open a device may have effects
    stream = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        require_regular(os.fstat(stream.fileno()))
    except OSError:
        stream.close()
        raise
    return stream


def require_regular(status: os.stat_result) -> None:
    """Raise OSError unless this is the status of a regular file."""
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise OSError(f"it is {KINDS.get(kind, 'something else')}, not a file")


def read_file(filesystem: fs.FileSystem, path: str) -> bytes:
    """The bytes of a file. Raises OSError, also above `MAX_FILE_BYTES`."""
    chunks: list[bytes] = []
    with open_file(filesystem, path) as file:
        stream: Any = file
        while chunk := stream.read(CHUNK_BYTES):
            chunks.append(chunk)
            if len(chunks) * CHUNK_BYTES > MAX_FILE_BYTES:
                raise OSError(too_large())
    return b"".join(chunks)


def too_large(size: int | None = None) -> str:
    """The reason why a file of `size` bytes, if known, is not read."""
    has = f"{size:,} bytes, more than" if size else "more than"
    return f"the file has {has} the allowed {MAX_FILE_BYTES:,}{'' if size else ' bytes'}"
