"""`python -m jobs.evaluate`: the entry point of `kallos evaluate`."""

from functools import partial

from cluster import command
from jobs.evaluate.config import EvaluateConfig

main = partial(command.main, EvaluateConfig)

if __name__ == "__main__":
    main()
