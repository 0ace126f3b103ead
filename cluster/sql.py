"""SQL for LanceDB filters."""

import re
from collections.abc import Iterable

from cluster.errors import UserError, shown


def literal(text: str) -> str:
    """A string literal. Quotes are doubled, the only escape in LanceDB's SQL."""
    return "'" + text.replace("'", "''") + "'"


def in_list(column: str, values: Iterable[str]) -> str:
    """Condition: the column equals one of the values; `false` if there are none."""
    listed = ", ".join(map(literal, values))
    return f"{column} IN ({listed})" if listed else "false"


def one_condition(where: str | None) -> str | None:
    """The user's filter. Raises UserError for a semicolon outside quotes: LanceDB ignores what follows it."""
    if where and ";" in re.sub(r"'[^']*'", "", where):
        raise UserError(f"The filter {shown(where)} has a `;`: give a single condition.")
    return where
