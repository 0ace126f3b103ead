"""`python -m jobs.ingest`: the entry point of `kallos ingest`."""

from functools import partial

from cluster import command
from jobs.ingest.config import IngestConfig

main = partial(command.main, IngestConfig)

if __name__ == "__main__":
    main()
