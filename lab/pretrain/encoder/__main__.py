"""`python -m lab.pretrain.encoder`: the entry point of `kallos pretrain encoder`."""

from cluster import command
from lab.pretrain.encoder.config import PretrainEncoderConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(PretrainEncoderConfig, argv)


if __name__ == "__main__":
    main()
