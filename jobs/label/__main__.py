"""`python -m jobs.label`: the entry point of `kallos label`."""

from cluster import command
from jobs.label.config import LabelConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(LabelConfig, argv)


if __name__ == "__main__":
    main()
