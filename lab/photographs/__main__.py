"""`python -m lab.photographs`: the entry point of `kallos photographs`."""

from cluster import command
from lab.photographs.config import PhotographsConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(PhotographsConfig, argv)


if __name__ == "__main__":
    main()
