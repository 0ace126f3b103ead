"""`python -m jobs.feedback`: the entry point of `kallos feedback`."""

from functools import partial

from cluster import command
from jobs.feedback.config import FeedbackConfig

main = partial(command.main, FeedbackConfig)

if __name__ == "__main__":
    main()
