"""`python -m lab.suite`: the entry point of `kallos suite`."""

from cluster import command
from lab.suite.config import SuiteConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(SuiteConfig, argv)


if __name__ == "__main__":
    main()
