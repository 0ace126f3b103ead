"""Typed filters -> SQL on an embeddings table. The only place where a client's text becomes part of SQL."""

import datetime
from collections.abc import Sequence

from cluster.sql import in_list, literal
from serve_app.models import Filters

BOUNDS = {
    "min_width_px": "width_px >=",
    "max_width_px": "width_px <=",
    "min_height_px": "height_px >=",
    "max_height_px": "height_px <=",
    "added_from": "added_at >=",
    "added_before": "added_at <",
    "min_aesthetic": "aesthetic >=",
}


def sql_condition(filters: Filters) -> str:
    """The filters as an SQL condition, "" if there are none."""
    parts = [f"{condition} {_bound(value)}" for name, condition in BOUNDS.items()
             if (value := getattr(filters, name)) is not None]  # fmt: skip
    parts += [f"array_contains(tags, {literal(tag)})" for tag in filters.tags_all]
    parts += [f"NOT coalesce(array_contains(tags, {literal(tag)}), false)" for tag in filters.tags_none]
    if filters.tags_any:
        parts.append(f"array_has_any(tags, {_list(filters.tags_any)})")
    if filters.sources:
        parts.append(in_list("source", filters.sources))
    return " AND ".join(parts)


def _bound(value: float | datetime.datetime) -> str:
    if not isinstance(value, datetime.datetime):
        return repr(value)
    return f"timestamp '{value.astimezone(datetime.UTC):%Y-%m-%d %H:%M:%S.%f}'"


def _list(values: Sequence[str]) -> str:
    return f"make_array({', '.join(map(literal, values))})"
