"""WebDataset tars."""

import posixpath
import tarfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data

from cluster.compat.ray_data import FileReader
from cluster.compat.tar import DamagedTar, members
from cluster.files import MAX_FILE_BYTES, open_file
from cluster.profile import Stage
from jobs.ingest.config import IngestConfig
from jobs.ingest.sources import listing
from jobs.ingest.sources.image_text import TextColumns
from jobs.ingest.sources.listing import WORD_EXTENSIONS, Location, extension, hidden_by, printable, stem
from jobs.ingest.sources.source import (
    Source,
    blocks,
    file_row,
    label_of,
    read_resources,
    required,
    source_rows,
    text_columns,
)
from jobs.ingest.sources.words import MAX_WORD_BYTES, read_words, stems

MAX_TAR_WORD_BYTES = 1 << 29


class TarImages(FileReader):
    """One row of `ROW_SCHEMA` per image, link or other file of a tar, and per words without an image.

    A tar is read twice, first its words, because the words of a picture may come after it. A truncated tar
    yields its complete members, and one more row with the error.
    """

    def __init__(
        self,
        location: Location,
        files: Sequence[tuple[str, int]],
        columns: TextColumns,
        include_hidden: bool = False,
    ) -> None:
        super().__init__(location.filesystem, files)
        self.location, self.columns, self.include_hidden = location, columns, include_hidden

    def read(self, path: str) -> Iterator[pa.Table]:
        """The rows of one tar."""
        yield from blocks(self._rows(path))

    def _rows(self, path: str) -> Iterator[dict]:
        uri = self.location.uri(printable(path))
        words = Words()
        open_stream = partial(open_file, self.filesystem, path)
        try:
            for member, data in members(open_stream, self._num_word_bytes):
                if member.isreg() and not self._hidden(member):
                    words.add(_key(member.name), data)
        except DamagedTar:
            pass  # reported below, in its place among the rows
        try:
            for member, data in members(open_stream, self._num_bytes):
                if not member.isdir() and not self._is_words(member):
                    make = partial(file_row, path, f"{uri}#{printable(member.name)}")
                    yield self._row(member, data, words, make)
        except DamagedTar as error:
            yield file_row(path, uri, error=str(error))
        for name in words.unused():
            yield file_row(path, f"{uri}#{printable(name)}", error="words without an image")

    def _row(self, member: tarfile.TarInfo, data: bytes, words: "Words", make: Any) -> dict:
        if self._hidden(member):
            return make(ignored=True)
        if not member.isreg():
            return make(error="it is a link or a device in the tar, not a file")
        if extension(member.name) not in listing.PICTURE_EXTENSIONS:
            error = listing.picture_content(data)
            return make(error=error, ignored=not error)
        text = read_words(words.of(_key(member.name)), self.columns)
        return make(data, text, listing.problem(member.name, member.size))

    def _hidden(self, member: tarfile.TarInfo) -> bool:
        return not self.include_hidden and bool(hidden_by(member.name))

    def _is_words(self, member: tarfile.TarInfo) -> bool:
        return member.isreg() and extension(member.name) in WORD_EXTENSIONS and not self._hidden(member)

    def _num_word_bytes(self, member: tarfile.TarInfo) -> int:
        return MAX_WORD_BYTES + 1 if self._is_words(member) else 0

    def _num_bytes(self, member: tarfile.TarInfo) -> int:
        if self._hidden(member) or self._is_words(member) or member.size > MAX_FILE_BYTES:
            return 0
        return -1 if extension(member.name) in listing.SUFFIXES else listing.HEAD_BYTES


class Words:
    """The text and JSON files of a tar, found by the name of an image.

    In a WebDataset the members of a sample have the same name up to the first dot, and the rest is the field:
    `7.image.jpg`, `7.text.txt`. But names may have more dots (`IMG_2024.01.05_001.jpg`). So an image has the
    words of its own name up to the last dot, and of its name up to an earlier dot, unless another image has
    that name. If it is the only image of its sample, it also has the sample's words in fields that several
    samples have.
    """

    def __init__(self) -> None:
        self.words: dict[str, list[tuple[str, bytes | str]]] = defaultdict(list)  # by stem
        self.stems_of: dict[str, set[str]] = defaultdict(set)  # stems of words, by sample
        self.num_images: Counter[str] = Counter()  # by sample
        self.images: set[str] = set()  # stems
        self.names: Counter[str] = Counter()  # of images
        self.fields: Counter[str] = Counter()
        self.used: set[str] = set()
        self.num_bytes = 0

    def add(self, name: str, data: bytes) -> None:
        """Add a member of the tar; `data` if it holds words."""
        sample, field = _split(name)
        if extension(name) in WORD_EXTENSIONS:
            self.num_bytes += len(data)
            full = self.num_bytes > MAX_TAR_WORD_BYTES
            self.words[stem(name)].append((name, "its tar has too many words" if full else data))
            self.stems_of[sample].add(stem(name))
            self.fields[field] += 1
        elif extension(name) in listing.PICTURE_EXTENSIONS:
            self.num_images[sample] += 1
            self.images.add(stem(name))
            self.names[name] += 1

    def of(self, name: str) -> list[tuple[str, bytes | str]]:
        """(name, content) of an image's words, the closest last; a str says why there is no content."""
        own = stem(name)
        near = [part for part in stems(name) if part == own or part not in self.images]
        sample = _split(name)[0]
        found = [word for part in reversed(near) for word in self.words.get(part, ())]
        if self.num_images[sample] == 1:
            others = (
                word for part in sorted(self.stems_of[sample].difference(near)) for word in self.words[part]
            )
            found = [word for word in others if self.fields[_split(word[0])[1]] > 1] + found
        self.used.update(word for word, _ in found)
        if self.names[name] > 1:
            twice = [word for word, count in Counter(word for word, _ in set(found)).items() if count > 1]
            return [(word, "the tar has several files of its name") for word in twice] or found
        return found

    def unused(self) -> list[str]:
        """The names of the words that `of` has not returned."""
        return [name for files in self.words.values() for name, _ in files if name not in self.used]


def _key(name: str) -> str:
    """The member's name without `./`, and with composed letters: words may be written in another form."""
    return unicodedata.normalize("NFC", posixpath.normpath(name))


def _split(name: str) -> tuple[str, str]:
    """The sample and the field of a member: the name up to the first dot, and after it."""
    folder, slash, file = name.rpartition("/")
    key, _, field = file.partition(".")
    return folder + slash + key, field


def open_webdataset(
    config: IngestConfig, location: Location, files: list[tuple[str, int]], decode: Stage
) -> Source:
    """Check a folder of tars."""
    tars = required(listing.tars_of(files), config, "tars")

    def dataset() -> ray.data.Dataset:
        reader = TarImages(location, tars, text_columns(config), config.include_hidden)
        return ray.data.read_datasource(reader, override_num_blocks=len(tars), **read_resources(decode))

    return Source("webdataset", label_of(config, location), None, dataset, source_rows)
