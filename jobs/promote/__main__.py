"""`python -m jobs.promote`: the entry point of `kallos promote`."""

from cluster import command
from jobs.promote.config import PromoteConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(PromoteConfig, argv)


if __name__ == "__main__":
    main()
