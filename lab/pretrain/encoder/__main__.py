"""`python -m lab.pretrain.encoder`: the entry point of `kallos pretrain encoder`."""

from cluster import command
from lab.pretrain.encoder.config import EncoderTraining


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(EncoderTraining, argv)


if __name__ == "__main__":
    main()
