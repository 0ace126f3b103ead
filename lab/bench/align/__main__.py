"""`python -m lab.bench.align`: the entry point of `kallos bench align`."""

from cluster import command
from lab.bench.align.config import BenchAlignConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(BenchAlignConfig, argv)


if __name__ == "__main__":
    main()
