"""`python -m lab.demo`: the entry point of `kallos demo`."""

from cluster import command
from lab.demo.config import DemoConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(DemoConfig, argv)


if __name__ == "__main__":
    main()
