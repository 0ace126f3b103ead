"""Captions and tags of an image, read from whichever columns its source has."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TextColumns:
    """Names of the caption column and of the columns whose values become tags."""

    caption: str = "caption"
    tags: tuple[str, ...] = ("split",)

    def names(self) -> tuple[str, ...]:
        """Every column that `read_text` looks at."""
        return (self.caption, "captions", "detailed_caption", "tags", *self.tags)


@dataclass(frozen=True)
class ImageText:
    """Caption, detailed caption and tags of one image; empty where the source has none."""

    caption: str = ""
    detailed_caption: str = ""
    tags: tuple[str, ...] = ()


def read_text(row: Mapping[str, Any], columns: TextColumns) -> ImageText:
    """Read the text of a metadata row.

    The list `captions` supplies what is missing: its first entry the caption, and the longest of the others,
    as the most specific, the detailed caption. `tags` is a list or a
    comma-separated text; each column of `columns.tags` adds the tag `column:value`.
    """
    captions = [_one_line(caption) for caption in row.get("captions") or ()]
    others = captions[1:]
    tags = row.get("tags") or ()
    tags = [tag for tag in (tags.split(",") if isinstance(tags, str) else tags) if tag is not None]
    tags += [f"{name}:{_one_line(row[name])}" for name in columns.tags if _one_line(row.get(name))]
    return ImageText(
        _one_line(row.get(columns.caption)) or (captions[0] if captions else ""),
        _one_line(row.get("detailed_caption")) or max(others, key=len, default=""),
        tuple(dict.fromkeys(_one_line(tag) for tag in tags if _one_line(tag))),
    )


def _one_line(value: object) -> str:
    """Any value as one line; None and NaN (an empty field of a CSV) are empty."""
    if value is None or value != value:
        return ""
    return re.sub(r"\s+", " ", str(value)).strip()
