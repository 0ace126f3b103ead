"""`python -m lab.bench.serve`: the entry point of `kallos bench serve`."""

from cluster import command
from lab.bench.serve.config import BenchServeConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(BenchServeConfig, argv)


if __name__ == "__main__":
    main()
