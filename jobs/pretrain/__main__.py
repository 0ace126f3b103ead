"""`kallos pretrain encoder|rephraser|judge ...`: trains one of the small models.

    kallos pretrain rephraser --out runs/pretrain/rephraser

Each part is a module of this package with a `Config`, `run(config) -> report` and `main(argv)`; only the one
asked for is imported.
"""

import importlib
import sys

PARTS = ("encoder", "rephraser", "judge")
USAGE = f"usage: kallos pretrain {{{','.join(PARTS)}}} [options]; `kallos pretrain <part> --help` lists them"


def main(argv: list[str] | None = None) -> None:
    """Runs the part that the first argument names. Exits with 2 for any other first argument."""
    arguments = sys.argv[1:] if argv is None else argv
    part = arguments[0] if arguments else ""
    if part in ("-h", "--help"):
        print(USAGE)
        return
    if part not in PARTS:
        print(f"error: unknown model {part!r} to train: choose one of {', '.join(PARTS)}.", file=sys.stderr)
        sys.exit(2)
    importlib.import_module(f"jobs.pretrain.{part}").main(arguments[1:])


if __name__ == "__main__":
    main()
