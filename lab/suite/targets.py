"""Targets: the figures that a suite has to reach, read from a YAML file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from cluster.command import Options, validated
from cluster.errors import UserError, shown
from jobs.evaluate.config import CHALLENGERS, SYSTEMS
from jobs.evaluate.figures import compared
from jobs.evaluate.figures.registry import AESTHETIC, METRICS

# The figures of report.json, which are known before any is measured.
FIGURES = {
    *(f"systems.{system}.{metric}" for system in SYSTEMS for metric in METRICS),
    *(
        f"differences.{name}.{metric}"
        for name in compared.comparisons(SYSTEMS, compared.NULLS[0])
        for metric in METRICS
    ),
    *(f"win_rate.{name}_vs_{other}.people" for name in CHALLENGERS for other in ("baseline", "suffix")),
    *(f"win_rate.{name}_vs_baseline.judge" for name in CHALLENGERS),
    *(f"share_of_teacher_gain.{name}.{AESTHETIC}" for name in CHALLENGERS),
}
DEFAULT = Path(__file__).with_name("targets.yaml")


class Target(Options):
    """A figure of report.json that has to be above `at_least`: by default with the lower bound of its 95 %
    interval, with `bound: value` by its value alone.
    """

    quantity: str
    figure: str
    at_least: float
    bound: Literal["lower", "value"] = "lower"

    def met(self, figure: Mapping) -> bool:
        """Whether the figure reaches the target; one that was not measured, or has no interval, does not."""
        if self.bound == "value":
            return figure["value"] is not None and bool(figure["value"] >= self.at_least)
        return bool(figure["ci95"]) and bool(figure["ci95"][0] > self.at_least)


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
        if unknown := {target.figure for target in targets} - FIGURES:
            raise UserError(f"{shown(min(unknown))} is not a figure of report.json, such as {min(FIGURES)}")
        return targets
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"the targets {str(file)!r} cannot be read: {error}") from None
    except UserError as error:
        raise UserError(f"the targets {str(file)!r} are malformed: {error}") from None


def compare(targets: Sequence[Target], report: Mapping) -> list[dict]:
    """{"quantity", "target", "bound", "value", "ci95", "met"} of each target."""
    rows = []
    for target in targets:
        figure = _figure(report, target.figure)
        rows.append(
            {
                "quantity": target.quantity,
                "target": target.at_least,
                "bound": target.bound,
                "value": figure["value"],
                "ci95": figure["ci95"],
                "met": target.met(figure),
            }
        )
    return rows


def _figure(report: Mapping, path: str) -> Mapping:
    """The figure at a path of keys, null if it was not measured."""
    found: Any = report
    for key in path.split("."):
        found = found.get(key, {})
    return found or {"value": None, "ci95": None}
