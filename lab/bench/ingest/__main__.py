"""`python -m lab.bench.ingest`: the entry point of `kallos bench ingest`."""

from cluster import command
from lab.bench.ingest.config import BenchIngestConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(BenchIngestConfig, argv)


if __name__ == "__main__":
    main()
