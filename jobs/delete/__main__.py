"""`python -m jobs.delete`: the entry point of `kallos delete`."""

from cluster import command
from jobs.delete.config import DeleteConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(DeleteConfig, argv)


if __name__ == "__main__":
    main()
