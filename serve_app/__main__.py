"""`python -m serve_app`: the entry point of `kallos serve`."""

from cluster import command
from serve_app.config import ServeConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, serve until a signal, print the report."""
    command.main(ServeConfig, argv)


if __name__ == "__main__":
    main()
