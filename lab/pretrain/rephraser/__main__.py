"""`python -m lab.pretrain.rephraser`: the entry point of `kallos pretrain rephraser`."""

from cluster import command
from lab.pretrain.rephraser.config import PretrainRephraserConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(PretrainRephraserConfig, argv)


if __name__ == "__main__":
    main()
