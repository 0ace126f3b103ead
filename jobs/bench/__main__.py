"""`python -m jobs.bench ingest|label|align|serve|index ...`: only the benchmark asked for is imported."""

import importlib
import sys

PARTS = ("ingest", "label", "align", "serve", "index")
USAGE = f"usage: kallos bench {{{','.join(PARTS)}}} [options]; `kallos bench <part> --help` lists them"


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark that the first argument names. Exits with 2 for any other first argument."""
    arguments = sys.argv[1:] if argv is None else argv
    part = arguments[0] if arguments else ""
    if part in ("-h", "--help"):
        print(USAGE)
        return
    if part not in PARTS:
        print(f"error: unknown benchmark {part!r}: choose one of {', '.join(PARTS)}.", file=sys.stderr)
        sys.exit(2)
    importlib.import_module(f"jobs.bench.{part}").main(arguments[1:])


if __name__ == "__main__":
    main()
