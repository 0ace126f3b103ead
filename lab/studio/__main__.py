"""`python -m lab.studio`: the entry point of `kallos studio`."""

from cluster import command
from lab.studio.config import StudioConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(StudioConfig, argv)


if __name__ == "__main__":
    main()
