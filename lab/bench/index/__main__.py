"""`python -m lab.bench.index`: the entry point of `kallos bench index`."""

from cluster import command
from lab.bench.index.config import BenchIndexConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(BenchIndexConfig, argv)


if __name__ == "__main__":
    main()
