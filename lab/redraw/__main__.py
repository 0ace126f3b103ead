"""`python -m lab.redraw`: the entry point of `kallos redraw`."""

from cluster import command
from lab.redraw.config import RedrawConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(RedrawConfig, argv)


if __name__ == "__main__":
    main()
