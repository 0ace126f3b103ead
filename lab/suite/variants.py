"""Variants of one setting: text towers aligned with each, and measured on the studio's held-out queries."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from cluster import command
from cluster.profile import Objective, Profile
from jobs.evaluate.config import EvaluateConfig
from lab.pipeline import StudioPipeline
from lab.suite.sweep import sweep
from lab.suite.tables import has_origin, origin_of, write_values

# Epochs of mode `text`: each takes a fifth of the time of an epoch of mode `both`.
TEXT_EPOCHS = 4
WORLD, ABLATIONS, OBJECTIVES = "world.json", "ablations", "objectives"


@dataclass(frozen=True)
class TrainingVariant:
    """One row of a comparison: the table it belongs to, its name, its settings of `label` and of `align`."""

    table: str
    name: str
    label: dict = field(default_factory=dict)
    align: dict = field(default_factory=dict)

    def changes(self, profile: Profile) -> tuple[dict, dict]:
        """The settings that differ from the profile's, of `label` and of `align`."""
        label, align = (
            {key: value for key, value in given.items() if value != getattr(own, key)}
            for given, own in ((self.label, profile.label), (self.align, profile.align))
        )
        return label, align


ABLATION_VARIANTS = (
    *(TrainingVariant("source", name, {"source": name}) for name in ("lmm_score", "lmm_pair", "scorer")),
    *(
        TrainingVariant("grid", f"u {u}, v {v}, stride {s}", {"rows": u, "columns": v, "stride": s})
        for u, v, s in ((5, 5, 4), (5, 5, 1), (1, 25, 4))
    ),
)
OBJECTIVE_VARIANTS = tuple(
    TrainingVariant("objective", name, align={"objective": name}) for name in get_args(Objective)
)


def read_world(pipeline: StudioPipeline) -> dict:
    """The reports of `label` and `align` on the pipeline's studio."""
    return json.loads((pipeline.folder / WORLD).read_text(encoding="utf-8"))


def table_path(pipeline: StudioPipeline, name: str) -> Path:
    return pipeline.folder / f"{name}.parquet"


def origin_of_variants(
    config: EvaluateConfig, pipeline: StudioPipeline, variants: tuple[TrainingVariant, ...]
) -> dict:
    """Everything that determines the table of those variants."""
    world = read_world(pipeline)
    runs = {"run_id": world["label"]["run_id"], "encoder": world["text"]["encoder"]}
    return origin_of(config, variants=[asdict(variant) for variant in variants], **runs)


def compare_variants(
    config: EvaluateConfig, pipeline: StudioPipeline, variants: tuple[TrainingVariant, ...], name: str
) -> None:
    """`<name>.parquet` and `<name>.json`: a text tower aligned once for each variant."""
    path, origin = table_path(pipeline, name), origin_of_variants(config, pipeline, variants)
    if has_origin(path, origin):
        return
    world, profile = read_world(pipeline), command.profile_of(config)
    values, reports = {}, {}
    for variant in variants:
        labelled, aligned = world["label"], world["text"]  # with the profile's settings
        label, align = variant.changes(profile)
        if label:
            labelled = pipeline.label(f"label {variant.name}", **label)
        if label or align:
            changes: dict[str, Any] = {"mode": "text", "epochs": TEXT_EPOCHS} | align
            aligned = pipeline.align(labelled, f"align {variant.name}", **changes)
        values[variant.name] = sweep(config, "baseline", aligned["encoder"], (1.0,))[1.0]
        reports[variant.name] = {
            "table": variant.table,
            "num_preferences": labelled["num_preferences"],
            "own": not (label or align),
        }
    path.with_suffix(".json").write_text(command.to_json(reports) + "\n", encoding="utf-8")
    write_values(values, path, origin)
