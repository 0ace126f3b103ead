"""SQL for LanceDB filters."""

from collections.abc import Iterable


def literal(text: str) -> str:
    """A string literal. Quotes are doubled, the only escape in LanceDB's SQL."""
    return "'" + text.replace("'", "''") + "'"


def in_list(column: str, values: Iterable[str]) -> str:
    """Condition: the column equals one of the values; `false` if there are none."""
    listed = ", ".join(map(literal, values))
    return f"{column} IN ({listed})" if listed else "false"
