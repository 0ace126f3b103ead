"""`python -m jobs.delete`: the entry point of `kallos delete`."""

from functools import partial

from cluster import command
from jobs.delete.config import DeleteConfig

main = partial(command.main, DeleteConfig)

if __name__ == "__main__":
    main()
