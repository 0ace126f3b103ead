"""Targets: the figures that a suite has to reach, read from a YAML file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cluster.command import Options, validated
from cluster.errors import UserError, shown
from jobs.evaluate.config import CHALLENGERS, SYSTEMS
from jobs.evaluate.figures.registry import METRICS

# The figures of report.json, which are known before any is measured.
FIGURES = {
    *(f"metrics.{system}.{metric}" for system in SYSTEMS for metric in METRICS),
    *(f"difference.{challenger}.{metric}" for challenger in CHALLENGERS for metric in METRICS),
    *(f"win_rate.{challenger}.{who}" for challenger in CHALLENGERS for who in ("judge", "people")),
    *(f"gain.share_{challenger}" for challenger in CHALLENGERS),
    "gain.teacher_over_baseline",
}
DEFAULT = Path(__file__).with_name("targets.yaml")


class Target(Options):
    """A figure of report.json, divided by that of `relative_to` if given, has to be `at_least` this."""

    quantity: str
    figure: str
    at_least: float
    relative_to: str | None = None


class Targets(Options):
    """The content of a targets file."""

    targets: tuple[Target, ...]


def load_targets(path: str | None) -> tuple[Target, ...]:
    """The targets of a file, default: those beside this module.

    Raises UserError if the file is missing or malformed, or names a figure that report.json will not have.
    """
    file = Path(path) if path else DEFAULT
    try:
        targets = validated(Targets, yaml.safe_load(file.read_text(encoding="utf-8"))).targets
        named = {name for t in targets for name in (t.figure, t.relative_to) if name}
        if unknown := named - FIGURES:
            raise UserError(f"{shown(min(unknown))} is not a figure of report.json, such as {min(FIGURES)}")
        return targets
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"the targets {str(file)!r} cannot be read: {error}") from None
    except UserError as error:
        raise UserError(f"the targets {str(file)!r} are malformed: {error}") from None


def compare(targets: Sequence[Target], report: Mapping) -> list[dict]:
    """{"quantity", "target", "value", "ci95", "met"} of each target whose figure was measured."""
    rows = []
    for target in targets:
        figure = _figure(report, target.figure)
        if target.relative_to:
            figure = _ratio(figure, _figure(report, target.relative_to))
        if figure and figure.get("value") is not None:
            rows.append(
                {
                    "quantity": target.quantity,
                    "target": target.at_least,
                    "value": figure["value"],
                    "ci95": figure["ci95"],
                    "met": bool(figure["value"] >= target.at_least),
                }
            )
    return rows


def _figure(report: Mapping, path: str) -> dict | None:
    found: Any = report
    for key in path.split("."):
        found = (found or {}).get(key)  # a system that was not measured has no figures
    return found


def _ratio(figure: dict | None, other: dict | None) -> dict | None:
    if not figure or not other:
        return None
    return {"value": round(figure["value"] / other["value"], 6), "ci95": None}
