"""`python -m lab.pretrain.judge`: the entry point of `kallos pretrain judge`."""

from cluster import command
from lab.pretrain.judge.config import PretrainJudgeConfig


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(PretrainJudgeConfig, argv)


if __name__ == "__main__":
    main()
