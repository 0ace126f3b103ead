"""Text and JSON files beside an image: `000.jpg` with `000.txt` and `000.json`."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from cluster.files import too_large
from cluster.text_files import decode, is_unicode
from jobs.ingest.sources.image_text import ImageText, TextColumns, read_text
from jobs.ingest.sources.listing import extension, printable

MAX_WORD_BYTES = 1 << 24


def read_words(files: Iterable[tuple[str, bytes | str]], columns: TextColumns) -> ImageText:
    """The words in (name, content) of an image's text and JSON files; a later file overrides an earlier one.

    A text file is the caption, unless a JSON object has one. Content that is a str says why a file cannot be
    used. Such a file gives an error, so that the image is rejected instead of silently losing its words.
    """
    text, row = "", {}
    for name, data in files:
        try:
            if isinstance(data, str):
                raise ValueError(data)
            if extension(name) == "json":
                row |= _json_object(data)
            else:
                text = _text(data) or text
        except (ValueError, RecursionError) as error:
            return ImageText(error=f"its words in '{printable(name)}' cannot be read: {error}")
    if text and not read_text({columns.caption: row.get(columns.caption)}, columns).caption:
        row[columns.caption] = text
    return read_text(row, columns)


def _json_object(data: bytes) -> dict[str, Any]:
    """The members of a JSON object, except null."""
    value = json.loads(_text(data) or "{}") or {}
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return {name: item for name, item in value.items() if item is not None}


def _text(data: bytes) -> str:
    if len(data) > MAX_WORD_BYTES:
        raise ValueError(too_large(limit=MAX_WORD_BYTES))
    text = decode(data).strip()
    if not is_unicode(text) or "\0" in text:
        raise ValueError("it is not text in UTF-8")
    return text


def stems(name: str) -> Iterator[str]:
    """The names that an image's words may have, the closest first: `a.b.jpg`, `a.b`, `a`."""
    folder, slash, file = name.rpartition("/")
    while file:
        yield folder + slash + file
        file = file.rpartition(".")[0]
