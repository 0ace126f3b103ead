"""The reference of all verbs and their options, as Markdown.

python -m lab.verb_reference > docs/verbs.md
"""

import ast
import importlib
from collections.abc import Iterator

import tyro
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cluster.command import JobConfig
from cluster.profile import ROOT
from jobs.cli import verb_groups
from lab.bench.__main__ import PARTS as BENCHMARKS
from lab.pretrain.__main__ import PARTS as MODELS
from lab.profile_reference import cell, type_of, value_of

INTRODUCTION = """# Verbs

This file is written by `python -m lab.verb_reference > docs/verbs.md`.

Run a verb with `kallos <verb> [options]`; `--help` lists its options. With `--submit http://head:8265` the
same command runs on a cluster as a Ray job. A verb that fills tables continues where it was killed, and adds
nothing when it is run twice. The last line on stdout is one JSON object; `kallos search` prints a table
instead, unless `--json` is given.

All verbs except `redraw` and `pretrain` take these options; `search` and `suite` have no `--store`:
"""
PARTS = {"bench": BENCHMARKS, "pretrain": MODELS}


def reference() -> str:
    """The content of `docs/verbs.md`."""
    lines = [INTRODUCTION, *_table(JobConfig.model_fields)]
    for title, verbs in verb_groups().items():
        lines.append(f"\n## {title[0].upper()}{title[1:]}")
        for verb, (package, _) in verbs.items():
            for part in PARTS.get(verb, ("",)):
                lines += _section(f"{verb} {part}".strip(), f"{package}.{part}".strip("."))
    return "\n".join(lines) + "\n"


def _section(verb: str, package: str) -> Iterator[str]:
    """What the package's docstring says, and the options that are not common to all verbs."""
    yield f"\n### kallos {verb}\n"
    tree = ast.parse(ROOT.joinpath(*package.split("."), "__init__.py").read_text(encoding="utf-8"))
    yield (ast.get_docstring(tree, clean=False) or "").strip()
    fields = _config(package).model_fields
    own = {name: field for name, field in fields.items() if name not in JobConfig.model_fields}
    if own:
        yield ""
        yield from _table(own)


def _config(package: str) -> type[BaseModel]:
    """The config that the package's module `config` defines."""
    module = importlib.import_module(f"{package}.config")
    defined = [
        value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__
    ]
    return next(one for one in defined if isinstance(one, type) and one.__name__.endswith("Config"))


def _table(fields: dict[str, FieldInfo]) -> Iterator[str]:
    yield "| option | type | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for name, field in fields.items():
        cells = (
            _flag(name, field),
            type_of(field).replace(" or null", ""),
            _default(field),
            field.description or "",
        )
        yield f"| {' | '.join(map(cell, cells))} |"


def _flag(name: str, field: FieldInfo) -> str:
    if tyro.conf.Positional in field.metadata:
        return f"`{name.upper()}`"
    return f"`--{name.strip('_').replace('_', '-')}`"


def _default(field: FieldInfo) -> str:
    """The default as code; empty for None, "" and (), as the description says what happens then."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if value in (None, "", ()) else value_of(value)


if __name__ == "__main__":
    print(reference(), end="")
