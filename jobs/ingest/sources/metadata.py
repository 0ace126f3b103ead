"""The metadata tables of a folder: captions and tags by file name."""

import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from cluster import terminal
from cluster.errors import UserError, shown
from cluster.files import open_seekable
from cluster.schemas import SCHEMAS
from cluster.table_files import READERS, TableFile, TableRow, listed, text
from cluster.text_files import one_line, open_user_file
from jobs.ingest.config import IngestConfig
from jobs.ingest.lookup import Lookup
from jobs.ingest.sources import listing
from jobs.ingest.sources.image_text import ImageText, TextColumns, read_text
from jobs.ingest.sources.listing import METADATA_NAMES, Location, extension, printable

KEY_COLUMNS = ("file_name", "file")
NUM_NAMED = 5  # of the rows and images without a counterpart
MAX_NAME = 200  # characters of a name in the report
WORDS = [SCHEMAS["images"].field(name) for name in ("caption", "detailed_caption", "tags")]
TEXT_SCHEMA = pa.schema([*WORDS, pa.field("error", pa.string())])


@dataclass(frozen=True)
class Entry:
    """A row of a metadata table: where it is, the name in it, the path that this means, and the words."""

    place: str
    name: str
    path: str
    text: ImageText


@dataclass(frozen=True)
class Metadata:
    """Captions and tags by path. rejects: (place, reason) of rows that belong to no image and are broken.

    report: the tables, the rows and images without a counterpart, and the first few of them.
    """

    lookup: Lookup
    texts: pa.Table
    rejects: list[tuple[str, str]] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)

    def text_of(self, path: str) -> ImageText:
        """Captions and tags of an image; empty when no table has it."""
        row = self.lookup.row(path)
        if row < 0:
            return ImageText()
        values = self.texts.slice(row, 1).to_pylist()[0]
        return ImageText(**{**values, "tags": tuple(values["tags"])})


def folder_metadata(
    config: IngestConfig,
    location: Location,
    tables: Sequence[str],
    images: Sequence[str],
    worded: Collection[str],
) -> Metadata:
    """The metadata of a folder: the table that the config names, or else the one of each folder below it.

    Names are relative to the table's folder, or to the source for a table of the config, and are compared in
    the `FORMS` below.

    Args:
        tables: the paths of the metadata tables below the source.
        images: the paths of the images.
        worded: the images that have text or JSON files of their own.

    Raises UserError for a broken table, and one without a column of file names.
    """
    columns = TextColumns(config.caption_column, config.tag_columns)
    entries, read = [], []
    for table, path, folder in _tables(config, location, tables):
        read.append(printable(table.uri(path)))
        entries += _entries(table, path, columns, lambda name, folder=folder: _path(name, folder, location))
    matched = match_paths([entry.path for entry in entries], images)
    texts = _texts(entries, matched)
    lost = [entry for entry, image in zip(entries, matched, strict=True) if not image]
    rejects = [(entry.place, entry.text.error) for entry in lost if entry.text.error]
    unmatched = [entry.name or entry.place for entry in lost if not entry.text.error]
    wordless = [path for path in images if texts.get(path, ImageText()) == ImageText() and path not in worded]
    rows = pa.Table.from_pylist([asdict(words) for words in texts.values()], TEXT_SCHEMA)
    report = _report(location, read, len(entries), unmatched, wordless) if read else {}
    return Metadata(Lookup(pa.array(map(printable, texts), pa.string())), rows, rejects, report)


def _texts(entries: list[Entry], matched: list[str]) -> dict[str, ImageText]:
    """The words of each matched image; an error where two rows differ."""
    texts: dict[str, ImageText] = {}
    places: dict[str, str] = {}
    for entry, image in zip(entries, matched, strict=True):
        if image and texts.setdefault(image, entry.text) != entry.text:
            texts[image] = ImageText(error=f"{places[image]} and {entry.place} give it different words")
        places.setdefault(image, entry.place)
    return texts


def _report(
    location: Location, tables: list[str], num_rows: int, unmatched: list[str], wordless: list[str]
) -> dict[str, Any]:
    root = location.path.rstrip("/") + "/"
    wordless = [printable(path.removeprefix(root)) for path in wordless]
    unmatched_words = f"of {num_rows} rows of metadata name no image"
    for names, what in ((unmatched, unmatched_words), (wordless, "images have no words")):
        if names:
            terminal.say(f"ingest: {len(names)} {what}, such as {shown(names[0])}")
    return {
        "metadata": {
            "tables": tables,
            "num_rows": num_rows,
            "num_rows_without_image": len(unmatched),
            "rows_without_image": [name[:MAX_NAME] for name in unmatched[:NUM_NAMED]],
            "num_images_without_words": len(wordless),
            "images_without_words": [name[:MAX_NAME] for name in wordless[:NUM_NAMED]],
        }
    }


def _tables(
    config: IngestConfig, location: Location, tables: Sequence[str]
) -> Iterator[tuple[Location, str, str]]:
    """(where, path, folder of its names) of each table to read."""
    if config.metadata:
        if "://" not in config.metadata:
            open_user_file(config.metadata).close()
        table = listing.locate(config.metadata)
        yield table, table.path, location.path
        return
    names_in = defaultdict(list)
    for path in tables:
        folder, _, name = path.rpartition("/")
        names_in[folder].append(name)
    for folder, names in sorted(names_in.items()):
        first, *others = sorted(names, key=METADATA_NAMES.index)
        if others:
            terminal.say(f"ingest: {folder}/{first} is read, {', '.join(others)} beside it is ignored")
        yield location, f"{folder}/{first}", folder


def _entries(
    table: Location, path: str, columns: TextColumns, resolve: Callable[[str], str]
) -> Iterator[Entry]:
    content = read_table(table.filesystem, path, columns)
    key = next((name for name in KEY_COLUMNS if name in content.names), "")
    if not key:
        raise UserError(
            f"metadata table {shown(path)} has no column '{KEY_COLUMNS[0]}' or '{KEY_COLUMNS[1]}'; it has "
            f"{listed(content.names)}: rename the one that names the files."
        )
    for row in content.rows:
        name, words = _name_and_words(row, key, columns)
        place = printable(f"{table.uri(path)}, {row.place}")
        words = replace(words, error=f"{place}: {words.error}") if words.error else words
        if name or words != ImageText():  # not an empty row
            yield Entry(place, name, resolve(name) if name else "", words)


def _name_and_words(row: TableRow, key: str, columns: TextColumns) -> tuple[str, ImageText]:
    try:
        name = text(row.values.get(key))
    except ValueError as error:
        return "", ImageText(error=f"{key} {error}")
    return name, ImageText(error=row.error) if row.error else read_text(row.values, columns)


def read_table(filesystem: fs.FileSystem, path: str, columns: TextColumns) -> TableFile:
    """Read a metadata table. Raises UserError when it is broken, or of an unknown format."""
    ending = f".{extension(path)}"
    if ending not in READERS:
        raise UserError(
            f"metadata table {shown(path)} has an unknown format; use one of {', '.join(READERS)}."
        )
    try:
        with open_seekable(filesystem, path) as file:
            return READERS[ending](file, (*KEY_COLUMNS, *columns.names()))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"metadata table {shown(path)} cannot be read ({one_line(str(error))}): repair it, or name "
            "another with --metadata."
        ) from error


def _path(name: str, folder: str, location: Location) -> str:
    """The path that a name means: relative to the folder, absolute, or a URI."""
    if location.prefix and name.startswith(location.prefix):
        return name.removeprefix(location.prefix)
    if name.startswith("file://"):
        return unquote(urlsplit(name).path)
    return posixpath.normpath(posixpath.join(folder, name))


def _slashes(path: str) -> str:
    return posixpath.normpath(path.replace("\\", "/"))


def _composed(path: str) -> str:
    return unicodedata.normalize("NFC", _slashes(path))


def _caseless(path: str) -> str:
    return unicodedata.normalize("NFC", _composed(path).casefold())


FORMS = (str, _slashes, _composed, _caseless)
"""Paths are compared as they are; then with `/` for `\\`; then with composed letters (a Mac decomposes them
in file names); then without regard to case. The first form that any image has decides."""


def match_paths(paths: Sequence[str], images: Sequence[str]) -> list[str]:
    """The image of each path; "" where none has its name, or several have it in the same form."""
    matched = [""] * len(paths)
    left = [row for row, path in enumerate(paths) if path]
    for form in FORMS:
        if not left:
            break
        known: dict[str, list[str]] = defaultdict(list)
        for image in images:
            known[form(image)].append(image)
        exact = set(matched)
        for row in left:
            found = known.get(form(paths[row]), [])
            if len(found) == 1 and found[0] not in exact:
                matched[row] = found[0]
        left = [row for row in left if not matched[row] and form(paths[row]) not in known]
    return matched
