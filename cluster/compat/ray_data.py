"""Ray Data: readers."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray.data
from lance_ray.datasource import LanceDatasource
from pyarrow import fs
from ray.data.datasource import FileBasedDatasource
from ray.data.datasource.file_meta_provider import DefaultFileMetadataProvider


def read_lance(
    uri: str, columns: Sequence[str], where: str | None = None, *, num_cpus: float, num_tasks: int
) -> ray.data.Dataset:
    """A dataset of the table's rows that `where` (SQL) keeps, read by at most `num_tasks` tasks at a time.

    `lance_ray.read_lance` takes resources only as `ray_remote_args`, which Ray removes in 2.64.
    `ray.data.read_lance` takes them by name, but does not decode Lance's blob columns.
    """
    source = LanceDatasource(uri=uri, columns=list(columns), filter=where)
    return ray.data.read_datasource(source, num_cpus=num_cpus, concurrency=num_tasks)


class KnownSizes(DefaultFileMetadataProvider):
    """Provides paths and sizes that are already known, so that Ray does not list the files again."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = sizes

    def expand_paths(self, paths: list[str], *_args: Any, **_kwargs: Any) -> Iterator[tuple[str, int]]:
        """(path, bytes) of each file."""
        yield from zip(paths, self.sizes, strict=True)


class Unreadable:
    """Replaces the stream of a file that could not be opened."""

    def __init__(self, error: str) -> None:
        self.error = error

    def __enter__(self) -> "Unreadable":
        return self

    def __exit__(self, *_error: object) -> None:
        pass


class FileReader(FileBasedDatasource):
    """Reads files, some of which may be gone: for those, `read` gets an `Unreadable`, not a stream.

    Ray's own readers end the job at the first file that cannot be opened. This class extends their base,
    which retries storage errors, and which offers only these underscored methods to override.
    """

    rows_per_file: int | None = None

    def __init__(self, filesystem: fs.FileSystem, files: Sequence[tuple[str, int]]) -> None:
        """`files`: (path, bytes) as listed."""
        paths, sizes = [path for path, _ in files], [size for _, size in files]
        super().__init__(paths, filesystem=filesystem, meta_provider=KnownSizes(sizes))

    @abstractmethod
    def read(self, stream: Any | Unreadable, path: str) -> Iterator[pa.Table]:
        """The rows of one file."""

    def _rows_per_file(self) -> int | None:
        return self.rows_per_file

    def _open_input_source(self, filesystem: Any, path: str, **open_args: Any) -> Any:
        try:
            return super()._open_input_source(filesystem, path, **open_args)
        except OSError as error:
            return Unreadable(f"cannot be opened: {error}")

    def _read_stream(self, f: Any, path: str) -> Iterator[pa.Table]:
        return self.read(f, path)
