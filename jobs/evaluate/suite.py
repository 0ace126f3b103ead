"""The whole evaluation from shipped checkpoints: several studios, each labelled, aligned and measured.

    kallos evaluate --suite full --profile mini      # -> runs/evaluate/report.json and report.html
    kallos evaluate --suite objectives               # the same studios, and the preference losses compared

For each seed a studio of its own is drawn, ingested, labelled, and aligned in both modes; baseline, teacher
and both aligned encoders are compared, and the weights between them (WiSE-FT). On the first studio the
rephrasing styles are compared, and what the source of preferences and the shape of the partial order matter
(in mode `text`, which costs no image). Started again it goes on where it stopped: everything lies in
`<out>/seed<N>`, and report.json is made from what lies there.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pyarrow as pa
import yaml
from pyarrow import parquet

from cluster.profile import Objective
from cluster.tables import now
from jobs import command
from jobs.evaluate import EvaluateConfig, compare, figures, saved, styles, suite_summary
from jobs.evaluate.sweep import ALPHAS, sweep
from jobs.loop import Loop, Stages, split

# Epochs of the text tower alone: each costs a fifth of one of both towers.
TEXT_EPOCHS = 4
WORLD, STYLES, ABLATIONS, OBJECTIVES = "world.json", "styles", "ablations", "objectives"


@dataclass(frozen=True)
class Variant:
    """One line of an ablation: how its table calls it, and what is changed of `label` and of `align`."""

    table: str
    name: str
    label: dict = field(default_factory=dict)
    align: dict = field(default_factory=dict)


# The first of each table is the profile's own.
VARIANTS = (
    Variant("source", "lmm_score"),
    Variant("source", "lmm_pair", {"source": "lmm_pair"}),
    Variant("source", "scorer", {"source": "scorer"}),
    Variant("grid", "u 5, v 5, stride 4"),
    Variant("grid", "u 5, v 5, stride 1", {"stride": 1}),
    Variant("grid", "u 1, v 25, stride 4", {"rows": 1, "columns": 25}),
)
LOSSES = tuple(
    Variant("objective", name, align={"objective": name} if name != "dpo" else {})
    for name in get_args(Objective)
)


def suite(config: EvaluateConfig) -> dict:
    """Run what is missing and make the report; returns the content of report.json.

    Raises UserError for the user's mistakes.
    """
    folder = Path(config.out)
    seeds = [config.seed + number for number in range(config.num_seeds)]
    command.save_config(config, folder)
    with_losses = config.suite == "objectives"
    changed = [v for v in (LOSSES * len(seeds) if with_losses else VARIANTS) if v.label or v.align]
    stages = Stages(total=9 * len(seeds) + 1 + sum(1 + bool(v.label) for v in changed))
    sizes = {"num_images": config.num_images, "num_queries": config.num_train_queries}
    loops = [
        Loop(folder / f"seed{seed}", config.profile, seed, stages, prefix=f"seed {seed}: ", **sizes)
        for seed in seeds
    ]
    for loop in loops:
        measure_world(config, loop)
    compare_styles(config, loops[0])
    if with_losses:
        for loop in loops:
            compare_variants(config, loop, LOSSES, OBJECTIVES)
    else:
        compare_variants(config, loops[0], VARIANTS, ABLATIONS)
    document = suite_summary.document(folder, seeds, config) | {
        "versions": compare.versions(),
        "created_at": now().isoformat(timespec="seconds"),
    }
    document["seconds"] = {**stages.seconds, "total": round(sum(stages.seconds.values()), 1)}
    (folder / "report.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return redraw(config)


def redraw(config: EvaluateConfig) -> dict:
    """The page anew from report.json and what lies beside it; nobody is asked again."""
    from jobs.evaluate import suite_report  # Jinja and pictures are needed for the page alone

    folder = Path(config.out)
    document = saved.read_document(folder)
    (folder / "report.html").write_text(suite_report.page(document, folder, config), encoding="utf-8")
    return document | {"report": str(folder / "report.html")}


def evaluation_of(config: EvaluateConfig, loop: Loop, **changes: object) -> EvaluateConfig:
    """How one studio is evaluated: on queries and images that training never saw."""
    given = {
        "truth": loop.scenes,
        "hpir": (f"{loop.scenes}/hpir.parquet",),
        "where": split("gallery"),
        "seed": loop.seed,
        "suite": "",
        "protocols": ("ranker", "scorer", "cp_scorer"),
        "out": str(loop.folder / "evaluate"),
    }
    return config.model_copy(update=given | loop.common | changes)


def measure_world(config: EvaluateConfig, loop: Loop) -> None:
    """Draw, label, align in both modes, compare and sweep one studio."""
    loop.ingest()
    labelled = loop.label()
    both = loop.align(labelled, mode="both")
    loop.index(both["encoder"])
    text = loop.align(labelled, "align text", mode="text", epochs=TEXT_EPOCHS)
    loop.index(text["encoder"], "index text")
    world = {"label": labelled, "both": both, "text": text}
    (loop.folder / WORLD).write_text(command.to_json(world) + "\n", encoding="utf-8")
    own = evaluation_of(config, loop, aligned=both["encoder"], text=text["encoder"])
    run = loop.stages.run
    run(f"{loop.prefix}evaluate", "encoders, teacher and judge", lambda: _once(own))
    run(f"{loop.prefix}sweep", "the weights between before and after", lambda: _sweeps(own, loop, world))


def _once(config: EvaluateConfig) -> dict:
    """The evaluation of one studio, unless the same one has been made there."""
    folder = Path(config.out)
    resolved = folder / "resolved_config.yaml"
    whole = all((folder / f"{name}.parquet").is_file() for name in ("answers", "series", "rows"))
    if whole and yaml.safe_load(resolved.read_text()) == config.model_dump(mode="json"):
        return saved.read_document(folder)
    return compare.compare(config)


def _sweeps(config: EvaluateConfig, loop: Loop, world: dict) -> dict:
    for mode in ("both", "text"):
        path = loop.folder / f"sweep_{mode}.parquet"
        made_of = {"encoder": world[mode]["encoder"]}
        if not is_made_of(path, made_of):
            stands = world[mode]["wise_ft_alpha"]
            found = sweep(config, "baseline", world[mode]["encoder"], ALPHAS, child_alpha=stands)
            write_series({str(alpha): series for alpha, series in found.items()}, path, made_of)
    return {}


def write_series(series: dict[str, dict[str, figures.Series]], path: Path, made_of: dict) -> None:
    """Values by query of several systems, as `series.parquet` of an evaluation has them."""
    parquet.write_table(pa.Table.from_pylist(saved.series_rows(series), saved.SERIES), path)
    path.with_suffix(".made_of").write_text(command.to_json(made_of), encoding="utf-8")


def is_made_of(path: Path, made_of: dict) -> bool:
    """Whether the table is there and was made of the same: a suite that goes on mixes no old with new."""
    mark = path.with_suffix(".made_of")
    return path.is_file() and mark.is_file() and mark.read_text(encoding="utf-8") == command.to_json(made_of)


def compare_styles(config: EvaluateConfig, loop: Loop) -> None:
    """`styles.parquet` and `styles.json`: what the baseline finds with each rephrasing style."""
    path = loop.folder / f"{STYLES}.parquet"
    made_of = {"run_id": _world(loop)["label"]["run_id"]}
    if is_made_of(path, made_of):
        return
    own = evaluation_of(config, loop)
    found = loop.stages.run("styles", "six ways to rephrase, without alignment", lambda: styles.measure(own))
    told = {style: {k: v for k, v in of.items() if k != "series"} for style, of in found.items()}
    path.with_suffix(".json").write_text(command.to_json(told) + "\n", encoding="utf-8")
    write_series({style: of["series"] for style, of in found.items()}, path, made_of)


def compare_variants(config: EvaluateConfig, loop: Loop, variants: tuple[Variant, ...], name: str) -> None:
    """`<name>.parquet` and `<name>.json`: a text tower aligned once for each variant."""
    path, world = loop.folder / f"{name}.parquet", _world(loop)
    made_of = {"run_id": world["label"]["run_id"], "encoder": world["text"]["encoder"]}
    if is_made_of(path, made_of):
        return
    own, series, told = evaluation_of(config, loop), {}, {}
    for variant in variants:
        aligned, labelled = world["text"], world["label"]  # the profile's own
        if variant.label:
            labelled = loop.label(f"label {variant.name}", **variant.label)
        if variant.label or variant.align:
            changes = {"mode": "text", "epochs": TEXT_EPOCHS} | variant.align
            aligned = loop.align(labelled, f"align {variant.name}", **changes)
        series[variant.name] = sweep(own, "baseline", aligned["encoder"], (1.0,))[1.0]
        told[variant.name] = {"table": variant.table, "num_preferences": labelled["num_preferences"]}
    path.with_suffix(".json").write_text(command.to_json(told) + "\n", encoding="utf-8")
    write_series(series, path, made_of)


def _world(loop: Loop) -> dict:
    return json.loads((loop.folder / WORLD).read_text(encoding="utf-8"))
