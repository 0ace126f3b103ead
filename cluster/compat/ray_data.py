"""Ray Data: readers."""

import copy
import itertools
from abc import abstractmethod
from collections.abc import Iterator, Sequence

import pyarrow as pa
import ray.data
from lance_ray.datasource import LanceDatasource
from pyarrow import fs
from ray.data import DataContext, Datasource, ReadTask
from ray.data._internal.util import RetryingPyFileSystem
from ray.data.block import BlockMetadata


def read_lance(
    uri: str,
    columns: Sequence[str],
    where: str | None = None,
    *,
    num_cpus: float,
    num_tasks: int,
    row_ids: bool = False,
) -> ray.data.Dataset:
    """A dataset of the table's rows that `where` (SQL) keeps, read by at most `num_tasks` tasks at a time.

    With `row_ids` it has the column `_rowid` as well, which differs for each row.

    `lance_ray.read_lance` takes resources only as `ray_remote_args`, which Ray removes in 2.64.
    `ray.data.read_lance` takes them by name, but does not decode Lance's blob columns.
    """
    options = {"with_row_id": True} if row_ids else None
    source = LanceDatasource(uri=uri, columns=list(columns), filter=where, scanner_options=options)
    return ray.data.read_datasource(source, num_cpus=num_cpus, concurrency=num_tasks)


class FileReader(Datasource):
    """Reads files in tasks, each of about equally many files.

    Ray's own readers end the job at the first file that cannot be opened. They also strip the white space of
    paths, and take `%20` and `C:` for parts of a URI, so they may read another file.
    """

    rows_per_file: int | None = None

    def __init__(self, filesystem: fs.FileSystem, files: Sequence[tuple[str, int]]) -> None:
        """`files`: (path, bytes) as listed."""
        super().__init__()
        self.filesystem, self.files = _retrying(filesystem), files

    @abstractmethod
    def read(self, path: str) -> Iterator[pa.Table]:
        """The rows of one file. Must not raise for a file that cannot be read."""

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size in self.files)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """The tasks: at most `parallelism`."""
        num_tasks = min(parallelism, len(self.files))
        ends = [index * len(self.files) // num_tasks for index in range(num_tasks + 1)]
        return [
            self._task(self.files[start:end], per_task_row_limit) for start, end in itertools.pairwise(ends)
        ]

    def part(self, files: Sequence[tuple[str, int]]) -> "FileReader":
        """A reader of only these files, so that a task does not carry the whole list."""
        reader = copy.copy(self)
        reader.files = files
        return reader

    def _task(self, files: Sequence[tuple[str, int]], row_limit: int | None) -> ReadTask:
        num_rows = len(files) * self.rows_per_file if self.rows_per_file else None
        size = sum(size for _, size in files)
        metadata = BlockMetadata(num_rows=num_rows, size_bytes=size, exec_stats=None)
        return ReadTask(self.part(files).read_all, metadata, per_task_row_limit=row_limit)

    def read_all(self) -> Iterator[pa.Table]:
        """The rows of all files."""
        for path, _ in self.files:
            yield from self.read(path)


def _retrying(filesystem: fs.FileSystem) -> fs.FileSystem:
    """The filesystem, which tries again after the storage errors that Ray counts as transient."""
    if isinstance(filesystem, fs.LocalFileSystem):
        return filesystem
    return RetryingPyFileSystem.wrap(filesystem, DataContext.get_current().retried_io_errors)
