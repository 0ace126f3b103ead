"""`python -m jobs.index`: the entry point of `kallos index`."""

from cluster import command
from jobs.index.config import IndexConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(IndexConfig, argv)


if __name__ == "__main__":
    main()
