"""`python -m jobs.promote`: the entry point of `kallos promote`."""

from functools import partial

from cluster import command
from jobs.promote.config import PromoteConfig

main = partial(command.main, PromoteConfig)

if __name__ == "__main__":
    main()
