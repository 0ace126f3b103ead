"""The reference of all profile fields, as Markdown.

python -m lab.profile_reference > docs/profile.md
"""

import types
from collections.abc import Iterator
from typing import Any, Literal, Union, cast, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from cluster.profile import PROFILES, Profile, Settings

INTRODUCTION = """# Profile fields

This file is written by `python -m lab.profile_reference > docs/profile.md`.

A profile names the models, the resources, the store and every setting of a run. `--profile` takes the name of
a shipped profile (`mini`, `gpu` or `fleet`, in `cluster/profiles/`) or the path of a YAML file of the same
shape. `--set` changes single fields on the command line of any verb:

    kallos align --set align.beta=2 guard.wise_ft_alpha=0.5
    kallos serve --set serve.max_k=50 --set serve.log_queries=true

Values are YAML; `null`, or nothing after the `=`, unsets a field. An option of the verb itself, such as
`kallos align --epochs`, takes precedence over `--set`, and `--set` over the file. The column "default"
applies where the file sets nothing; the column "mini" shows what the file of the profile `mini` sets.
"""
LIMITS = (("ge", "≥ {}"), ("gt", "> {}"), ("le", "≤ {}"), ("lt", "< {}"))
SEPARATED_FROM = 100_000


def reference() -> str:
    """The content of `docs/profile.md`."""
    mini = yaml.safe_load((PROFILES / "mini.yaml").read_text(encoding="utf-8"))
    return "\n".join([INTRODUCTION, *_section("", Profile, mini, Profile.__doc__ or "")])


def _section(path: str, model: type[Settings], values: dict[str, Any], text: str) -> Iterator[str]:
    """A table of the model's own fields, then the sections below it.

    `values`: those of the mini profile. `text`: what the section is about.
    """
    prefix = f"{path}." if path else ""
    subsections = {name: field for name, field in model.model_fields.items() if _is_settings(field)}
    yield f"## {path or 'profile'}\n"
    yield f"{text[0].upper()}{text[1:].removesuffix('.')}.\n"
    yield "| field | type | default | mini | meaning |"
    yield "| --- | --- | --- | --- | --- |"
    for name, field in model.model_fields.items():
        if name not in subsections:
            yield _row(prefix + name, field, values.get(name))
    yield ""
    for name, field in subsections.items():
        below = cast(type[Settings], field.annotation)
        yield from _section(prefix + name, below, values.get(name, {}), field.description or "")


def _is_settings(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, Settings)


def _row(path: str, field: FieldInfo, mini: Any) -> str:
    default = "required" if field.is_required() else value_of(field.get_default(call_default_factory=True))
    own = "" if mini is None else value_of(mini)
    cells = (f"`{path}`", type_of(field), default, own, field.description or "")
    return f"| {' | '.join(map(cell, cells))} |"


def cell(text: str) -> str:
    """The text of a table cell, with its bars escaped."""
    return text.replace("|", "\\|")


def type_of(field: FieldInfo) -> str:
    """The type of a field and its limits."""
    limits = {
        text.format(_plain(getattr(limit, name)))
        for limit in field.metadata
        for name, text in LIMITS
        if getattr(limit, name, None) is not None
    }
    return ", ".join([_name(field.annotation), *sorted(limits, reverse=True)])


def _name(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_name(part) for part in get_args(annotation))
    if get_origin(annotation) is tuple:
        return f"list of {_name(get_args(annotation)[0])}"
    names = {bool: "true or false", str: "text", dict[str, Any]: "mapping", type(None): "null"}
    return names.get(annotation) or annotation.__name__


def value_of(value: Any) -> str:
    """The value as code."""
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    """The value as YAML on one line; large whole numbers with separators."""
    if isinstance(value, int) and value >= SEPARATED_FROM:
        return f"{value:_}"
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


if __name__ == "__main__":
    print(reference(), end="")
