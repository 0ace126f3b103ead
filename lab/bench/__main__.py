"""`python -m lab.bench ingest|label|align|serve|index`: the entry point of `kallos bench`."""

from lab.parts import run_part

PARTS = ("ingest", "label", "align", "serve", "index")


def main(argv: list[str] | None = None) -> None:
    """Run the part that the first argument names."""
    run_part("lab.bench", PARTS, argv)


if __name__ == "__main__":
    main()
