"""`python -m jobs.align`: the entry point of `kallos align`."""

from cluster import command
from jobs.align.config import AlignConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(AlignConfig, argv)


if __name__ == "__main__":
    main()
