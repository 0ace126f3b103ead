"""`python -m serve_app.client`: the entry point of `kallos search`."""

from cluster import command
from cluster.errors import exit_on_user_error
from serve_app.client.config import SearchConfig
from serve_app.client.job import run


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, search, print the results."""
    with exit_on_user_error():
        run(command.parse(SearchConfig, argv))


if __name__ == "__main__":
    main()
