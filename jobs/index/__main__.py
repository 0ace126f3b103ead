"""`python -m jobs.index`: the entry point of `kallos index`."""

from functools import partial

from cluster import command
from jobs.index.config import IndexConfig

main = partial(command.main, IndexConfig)

if __name__ == "__main__":
    main()
