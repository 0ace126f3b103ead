"""Captions and tags of an image, from whatever columns its source has."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Columns:
    """Names of the columns that carry words, and of those whose values become tags."""

    caption: str = "caption"
    tags: tuple[str, ...] = ("split",)

    def wanted(self) -> tuple[str, ...]:
        """Every column that `words_of` looks at."""
        return (self.caption, "captions", "detailed_caption", "tags", *self.tags)


@dataclass(frozen=True)
class Words:
    """What is said about an image; empty strings where nothing is."""

    caption: str = ""
    detailed_caption: str = ""
    tags: tuple[str, ...] = ()


NO_WORDS = Words()


def words_of(row: Mapping[str, Any], columns: Columns) -> Words:
    """A metadata row -> caption, detailed caption and tags.

    `captions` (a list) stands in for missing ones: its first, and the longest of the others, which says most
    and is nearest to unique. `tags` is a list or a comma-separated text; `tag_columns` add `column:value`.
    """
    captions = [_text(caption) for caption in row.get("captions") or ()]
    others = captions[1:]
    tags = row.get("tags") or ()
    tags = [tag for tag in (tags.split(",") if isinstance(tags, str) else tags) if tag is not None]
    tags += [f"{name}:{_text(row[name])}" for name in columns.tags if _text(row.get(name))]
    return Words(
        _text(row.get(columns.caption)) or (captions[0] if captions else ""),
        _text(row.get("detailed_caption")) or max(others, key=len, default=""),
        tuple(dict.fromkeys(_text(tag) for tag in tags if _text(tag))),
    )


def _text(value: object) -> str:
    """Any value as one line; None and NaN (an empty field of a CSV) are empty."""
    if value is None or value != value:
        return ""
    return re.sub(r"\s+", " ", str(value)).strip()
