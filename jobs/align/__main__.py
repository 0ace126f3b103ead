"""`python -m jobs.align`: the entry point of `kallos align`."""

from functools import partial

from cluster import command
from jobs.align.config import AlignConfig

main = partial(command.main, AlignConfig)

if __name__ == "__main__":
    main()
