"""`python -m jobs.ingest`: the entry point of `kallos ingest`."""

from cluster import command
from jobs.ingest.config import IngestConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(IngestConfig, argv)


if __name__ == "__main__":
    main()
