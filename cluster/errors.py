"""Errors that are the user's to correct."""

import contextlib
import sys
from collections.abc import Iterator


class UserError(ValueError):
    """A mistake of the user: one sentence that names the thing, its value and the way out; no traceback."""


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End the process with status 2 and the sentence on stderr."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
