"""`python -m lab.bench.label`: the entry point of `kallos bench label`."""

from cluster import command
from lab.bench.label.config import BenchLabelConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(BenchLabelConfig, argv)


if __name__ == "__main__":
    main()
