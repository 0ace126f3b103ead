"""SQL for LanceDB filters."""

from collections.abc import Iterable


def literal(text: str) -> str:
    """A string literal. A quote inside is doubled; LanceDB's SQL knows no other escape."""
    return "'" + text.replace("'", "''") + "'"


def in_list(column: str, values: Iterable[str]) -> str:
    """Condition: the column equals one of the values, in the order given; false if there are none."""
    listed = ", ".join(map(literal, values))
    return f"{column} IN ({listed})" if listed else "false"
