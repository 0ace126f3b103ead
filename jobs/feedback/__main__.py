"""`python -m jobs.feedback`: the entry point of `kallos feedback`."""

from cluster import command
from jobs.feedback.config import FeedbackConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(FeedbackConfig, argv)


if __name__ == "__main__":
    main()
