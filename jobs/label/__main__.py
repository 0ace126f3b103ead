"""`python -m jobs.label`: the entry point of `kallos label`."""

from functools import partial

from cluster import command
from jobs.label.config import LabelConfig

main = partial(command.main, LabelConfig)

if __name__ == "__main__":
    main()
