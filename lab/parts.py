"""Verbs with parts, such as `kallos bench ingest` or `kallos pretrain judge`. Each part works like a verb."""

import importlib
import sys
from collections.abc import Sequence


def run_part(group: str, parts: Sequence[str], argv: Sequence[str] | None = None) -> None:
    """Run the part that the first argument names; no other part is imported.

    group: package of the parts, such as `lab.bench`. parts: their names. argv: the arguments, None for those
    of the process. Exits with status 2 for an unknown part.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = group.rpartition(".")[2]
    part = arguments[0] if arguments else ""
    if part in ("-h", "--help"):
        print(
            f"usage: kallos {verb} {{{','.join(parts)}}} [options]; `kallos {verb} <part> --help` lists them"
        )
        return
    if part not in parts:
        given = repr(part) if part else "nothing"
        print(f"error: kallos {verb} {given}: choose one of {', '.join(parts)}.", file=sys.stderr)
        sys.exit(2)
    importlib.import_module(f"{group}.{part}.__main__").main(arguments[1:])
