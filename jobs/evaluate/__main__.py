"""`python -m jobs.evaluate`: the entry point of `kallos evaluate`."""

from cluster import command
from jobs.evaluate.config import EvaluateConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(EvaluateConfig, argv)


if __name__ == "__main__":
    main()
