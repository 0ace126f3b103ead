"""`python -m lab.pretrain encoder|rephraser|judge`: the entry point of `kallos pretrain`."""

from lab.parts import run_part

PARTS = ("encoder", "rephraser", "judge")


def main(argv: list[str] | None = None) -> None:
    """Run the part that the first argument names."""
    run_part("lab.pretrain", PARTS, argv)


if __name__ == "__main__":
    main()
