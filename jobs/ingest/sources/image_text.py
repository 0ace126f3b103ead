"""Captions and tags of an image, read from whichever columns its source has."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.text_files import NOT_UNICODE, decode, is_unicode, one_line

# The entries of a dictionary that hold its words: {"raw": ..., "tokens": ...}, {"en": ..., "de": ...}.
WORDS_KEYS = ("caption", "raw", "text", "en")
MAX_NESTING = 4


@dataclass(frozen=True)
class TextColumns:
    """Names of the caption column and of the columns whose values become tags."""

    caption: str = "caption"
    tags: tuple[str, ...] = ("split",)

    def names(self) -> tuple[str, ...]:
        """Every column that `read_text` looks at."""
        return tuple(dict.fromkeys((self.caption, "captions", "detailed_caption", "tags", *self.tags)))


@dataclass(frozen=True)
class ImageText:
    """Caption, detailed caption and tags of one image; empty where the source has none.

    error: why the words cannot be stored, else "". The image is then rejected: once it is stored, another
    ingest would skip it and not add the words.
    """

    caption: str = ""
    detailed_caption: str = ""
    tags: tuple[str, ...] = ()
    error: str = ""


def read_text(row: Mapping[str, Any], columns: TextColumns) -> ImageText:
    """Read the words of a row, of whatever types its values are. Never raises.

    A text is one caption, a list several, and a dictionary the one under the first of `WORDS_KEYS`, else its
    first text. Numbers and dates are written as text; truth values and null give no caption. The first of
    `caption` and `captions` together is the caption, and the longest of the others, as the most specific, the
    detailed caption unless there is one. `tags` is a list or a comma-separated text; each column of
    `columns.tags` adds the tag `column:value`.
    """
    captions = list(dict.fromkeys([*_texts(row.get(columns.caption)), *_texts(row.get("captions"))]))
    caption = captions[0] if captions else ""
    detailed = next(_texts(row.get("detailed_caption")), "") or max(captions[1:], key=len, default="")
    tags = [part for text in _texts(row.get("tags")) for part in _tags(text, row["tags"])]
    tags += [f"{name}:{text}" for name in columns.tags for text in _texts(_truth_as_text(row.get(name)))]
    if not is_unicode("".join((caption, detailed, *tags))):
        return ImageText(error=f"its caption or a tag {NOT_UNICODE}")
    return ImageText(caption, detailed, tuple(dict.fromkeys(filter(None, map(str.strip, tags)))))


def _tags(text: str, value: object) -> list[str]:
    return text.split(",") if _is_text(value) else [text]


def _truth_as_text(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _texts(value: Any, depth: int = MAX_NESTING) -> Iterator[str]:
    """The texts of a value, each on one line, without empty ones."""
    if isinstance(value, Mapping):
        found = (value[key] for key in dict.fromkeys((*WORDS_KEYS, *value)) if key in value)
        words = (item for item in found if not isinstance(item, int | float))  # ids and scores
        yield from itertools.islice(_texts(list(words), depth), 1)
    elif isinstance(value, list | tuple):
        for item in value if depth else ():
            yield from _texts(item, depth - 1)
    elif value is not None and not isinstance(value, bool) and value == value:  # NaN: an empty field
        text = value if isinstance(value, str) else decode(value) if _is_text(value) else str(value)
        yield from filter(None, [one_line(text)])


def _is_text(value: object) -> bool:
    return isinstance(value, str | bytes)
