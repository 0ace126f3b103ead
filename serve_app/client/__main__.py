"""`python -m serve_app.client`: the entry point of `kallos search`."""

import sys

import tyro
from pydantic import ValidationError

from cluster.errors import UserError
from cluster.profile import explain
from serve_app.client.config import SearchArgs
from serve_app.client.job import run


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, ask, print. Exit status 2 for a user's mistake."""
    try:
        args = tyro.cli(SearchArgs, args=argv, prog="kallos search", description=__doc__)
        run(args)
    except (UserError, ValidationError) as error:
        print(f"error: {explain(error) if isinstance(error, ValidationError) else error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
