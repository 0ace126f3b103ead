"""A folder of image files, with a table of captions, or text and JSON files, beside them."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import pyarrow as pa
import ray.data

from cluster.compat.ray_data import FileReader
from cluster.files import read_file, read_head
from cluster.profile import Stage
from jobs.ingest.config import IngestConfig
from jobs.ingest.prepare import SourceRow
from jobs.ingest.sources import listing
from jobs.ingest.sources.image_text import ImageText, TextColumns
from jobs.ingest.sources.listing import METADATA_NAMES, WORD_EXTENSIONS, Location, extension, printable, stem
from jobs.ingest.sources.metadata import Metadata, folder_metadata, match_paths
from jobs.ingest.sources.source import (
    ROW_SCHEMA,
    Source,
    file_row,
    label_of,
    read_resources,
    required,
    text_columns,
    text_of,
)
from jobs.ingest.sources.words import MAX_WORD_BYTES, read_words


class ImageFiles(FileReader):
    """One row of `ROW_SCHEMA` per file: an image with the words beside it, or another file."""

    rows_per_file = 1

    def __init__(
        self,
        location: Location,
        files: Sequence[tuple[str, int]],
        words: Mapping[str, Sequence[str]],
        columns: TextColumns,
    ) -> None:
        """`words`: paths of the text and JSON files of an image, by the image's path."""
        super().__init__(location.filesystem, files)
        self.location, self.words, self.columns = location, words, columns

    def part(self, files: Sequence[tuple[str, int]]) -> "ImageFiles":
        """A reader of only these files, with only their words."""
        reader = cast(ImageFiles, super().part(files))
        reader.words = {path: self.words[path] for path, _ in files if path in self.words}
        return reader

    def read(self, path: str) -> Iterator[pa.Table]:
        """One row with the file's bytes, or with the reason why there are none."""
        make = partial(file_row, path, self.location.uri(printable(path)))
        try:
            row = self._image(path, make) if extension(path) in listing.SUFFIXES else self._other(path, make)
        except (OSError, ValueError) as failure:  # ValueError: a NUL in the path
            row = make(error=f"cannot be opened: {failure}")
        yield pa.Table.from_pylist([row], ROW_SCHEMA)

    def _image(self, path: str, make: Any) -> dict:
        words = [
            (word_path, read_file(self.filesystem, word_path, MAX_WORD_BYTES))
            for word_path in self.words.get(path, ())
        ]
        return make(read_file(self.filesystem, path), read_words(words, self.columns))

    def _other(self, path: str, make: Any) -> dict:
        error = listing.picture_content(read_head(self.filesystem, path, listing.HEAD_BYTES))
        return make(error=error, ignored=not error)


def open_folder(
    config: IngestConfig, location: Location, files: list[tuple[str, int]], decode: Stage
) -> Source:
    """Check a folder of image files."""
    found = required(listing.pictures_of(files), config, "image files")
    problems = {path: listing.problem(path, size) for path, size in found}
    rejects = [(location.uri(listing.printable(path)), reason) for path, reason in problems.items() if reason]
    tables = {name for path, _ in files if (name := path).rpartition("/")[2] in METADATA_NAMES}
    words = _words_beside([path for path, _ in found], [path for path, _ in files if path not in tables])
    used = {path for paths in words.values() for path in paths} | tables
    # The other files are read as well, to find pictures without an image's extension.
    to_read = [file for file in files if not problems.get(file[0]) and file[0] not in used]
    num_tasks = max(1, math.ceil(len(to_read) / decode.batch_size))  # about one batch each

    def dataset() -> ray.data.Dataset:
        reader = ImageFiles(location, to_read, words, text_columns(config))
        return ray.data.read_datasource(reader, override_num_blocks=num_tasks, **read_resources(decode))

    metadata = folder_metadata(config, location, sorted(tables), [path for path, _ in found], words)
    return Source(
        "folder",
        label_of(config, location),
        len(found) + len(metadata.rejects),
        dataset,
        partial(folder_rows, metadata=metadata),
        rejects + metadata.rejects,
        num_word_files=len(used),
        report=metadata.report,
    )


def _words_beside(images: list[str], paths: list[str]) -> dict[str, list[str]]:
    """The text and JSON files of each image: `a.txt` or `a.jpg.txt` for `a.jpg`."""
    words = [path for path in paths if extension(path) in WORD_EXTENSIONS]
    stems = dict.fromkeys(map(stem, images))
    names = match_paths([stem(path) for path in words], list(stems | dict.fromkeys(images)))
    words_of = defaultdict(list)
    for path, name in zip(words, names, strict=True):
        words_of[name].append(path)
    found = {path: words_of[stem(path)] + (words_of[path] if path not in stems else []) for path in images}
    return {path: words for path, words in found.items() if words}


def folder_rows(batch: pa.Table, *, metadata: Metadata) -> Iterator[SourceRow]:
    """Rows of `ImageFiles`; words of the metadata tables replace those of the files beside an image."""
    for row in batch.to_pylist():
        text = metadata.text_of(row["path"])
        text = text if text != ImageText() else text_of(row)
        yield SourceRow(row["uri"], row["bytes"], text, row["error"], ignored=row["ignored"])
