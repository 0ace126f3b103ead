"""tarfile, with an error where it would silently leave out members, or read without a limit.

On its own, tarfile takes an invalid header in the middle for the end, stops after the first of several
archives in one file, accepts a file that is cut off between two members, and reads a header of any declared
size. Its documented parameter `tarinfo` sees every header; the names of the header errors are undocumented.
"""

import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

MAX_HEADER_BYTES = 1 << 20
BUFFER_BYTES = 1 << 16
GZIP = b"\x1f\x8b"
Errors: Any = tarfile  # its header errors are not in `__all__`


class DamagedTar(OSError):
    """The rest of a tar cannot be read; the message gives the reason."""


def members(
    open_stream: Callable[[], Any], num_bytes: Callable[[tarfile.TarInfo], int]
) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Each member of a tar, plain or compressed, with its first `num_bytes(member)` bytes; -1: all.

    Members that are not files have none. Raises DamagedTar, after the members that could be read.
    """
    try:
        with _decompressed(open_stream) as stream, _open(stream) as tar:
            headers: list[tarfile.TarInfo] = vars(tar)["members"]
            while (member := tar.next()) is not None:
                headers.clear()  # else a tar of a million members keeps a million headers
                wanted = num_bytes(member) if member.isreg() else 0
                file = tar.extractfile(member) if wanted else None
                yield member, file.read(wanted) if file else b""
    except Exception as error:  # tarfile and the decompressors raise nearly every built-in type
        raise DamagedTar(f"the tar is truncated or damaged: {error or type(error).__name__}") from error


def _open(stream: Any) -> tarfile.TarFile:
    ending: Any = _Ending(stream)
    return tarfile.open(
        fileobj=ending, mode="r|*", bufsize=BUFFER_BYTES, ignore_zeros=True, tarinfo=_header_type()
    )


class _Ending:
    """A stream that raises after its end: tarfile would read on for years if a header declares an exabyte."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.ended = stream, False

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        if self.ended and not data:
            raise tarfile.ReadError("unexpected end of data")
        self.ended = not data
        return data


def _decompressed(open_stream: Callable[[], Any]) -> Any:
    """The stream; a gzip is unpacked by Arrow, because tarfile ends at the first of several gzip members."""
    with open_stream() as stream:
        packed = stream.read(len(GZIP)) == GZIP
    stream = open_stream()
    return pa.CompressedInputStream(stream, "gzip") if packed else stream


def _header_type() -> type[tarfile.TarInfo]:
    """The type of one tar's headers: it remembers whether the tar's end mark was read."""

    class Header(tarfile.TarInfo):
        ended = False

        @classmethod
        def fromtarfile(cls, tarfile: Any) -> "Header":
            try:
                return super().fromtarfile(tarfile)
            except Errors.EOFHeaderError:
                cls.ended = True
                raise
            except Errors.SubsequentHeaderError:  # becomes a ReadError
                raise
            except Errors.HeaderError as error:
                if cls.ended:  # the end of the file, or padding after the end mark
                    raise Errors.EmptyHeaderError(str(error)) from error
                empty = isinstance(error, Errors.EmptyHeaderError)
                raise Errors.ReadError("it has no end mark" if empty else str(error)) from error

        @classmethod
        def frombuf(cls, buf: Any, encoding: str, errors: str) -> "Header":
            header = super().frombuf(buf, encoding, errors)
            cls.ended = False
            if header.size < 0 or (header.size > MAX_HEADER_BYTES and header.type in _EXTRA_HEADERS):
                raise tarfile.ReadError(f"a header declares {header.size:,} bytes")
            return header

    return Header


_EXTRA_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
