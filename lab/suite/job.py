"""The whole evaluation from shipped checkpoints: several studios, each labelled, aligned and measured.

    kallos evaluate --suite full --profile mini      # -> runs/evaluate/report.json and report.html
    kallos evaluate --suite objectives               # the same studios, and the preference losses compared

For each seed a studio of its own is drawn, ingested, labelled, and aligned in both modes; baseline, teacher
and both aligned encoders are compared, and the weights between them (WiSE-FT). On the first studio each epoch
is measured, the rephrasing styles are compared, and what the source of preferences and the shape of the
partial order matter (in mode `text`, which costs no image). Started again it goes on where it stopped:
everything lies in `<out>/seed<N>`, and report.json is made from what lies there.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import get_args

import pyarrow as pa
from pyarrow import parquet

from cluster import command
from cluster.profile import Objective, Profile
from cluster.tables import now
from jobs.evaluate import compare, output_files
from jobs.evaluate.config import DRAWING, EvaluateConfig
from jobs.evaluate.figures import per_query
from lab.loop import Loop, Stages, kept_epochs, split
from lab.suite import styles
from lab.suite import summary as suite_summary
from lab.suite.sweep import ALPHAS, sweep, training_curve

# Epochs of the text tower alone: each costs a fifth of one of both towers.
TEXT_EPOCHS = 4
WORLD, STYLES, CURVE, ABLATIONS, OBJECTIVES = "world.json", "styles", "epochs", "ablations", "objectives"


@dataclass(frozen=True)
class Variant:
    """One line of an ablation: how its table calls it, and its settings of `label` and of `align`."""

    table: str
    name: str
    label: dict = field(default_factory=dict)
    align: dict = field(default_factory=dict)

    def changes(self, profile: Profile) -> tuple[dict, dict]:
        """Those settings that are not the profile's own, of `label` and of `align`."""
        pairs = ((self.label, profile.label), (self.align, profile.align))
        return tuple({k: v for k, v in given.items() if v != getattr(own, k)} for given, own in pairs)


VARIANTS = (
    *(Variant("source", name, {"source": name}) for name in ("lmm_score", "lmm_pair", "scorer")),
    *(
        Variant("grid", f"u {u}, v {v}, stride {s}", {"rows": u, "columns": v, "stride": s})
        for u, v, s in ((5, 5, 4), (5, 5, 1), (1, 25, 4))
    ),
)
LOSSES = tuple(Variant("objective", name, align={"objective": name}) for name in get_args(Objective))


def suite(config: EvaluateConfig) -> dict:
    """Run what is missing and make the report; returns the content of report.json.

    Raises UserError for the user's mistakes.
    """
    folder, profile = Path(config.out), command.profile_of(config)
    seeds = [config.seed + number for number in range(config.num_seeds)]
    went_on = any((folder / f"seed{seed}" / WORLD).is_file() for seed in seeds)
    command.save_config(config, folder)
    with_losses = config.suite == "objectives"
    changes = [variant.changes(profile) for variant in (LOSSES * len(seeds) if with_losses else VARIANTS)]
    changed = [(label, align) for label, align in changes if label or align]
    stages = Stages(total=9 * len(seeds) + 2 + sum(1 + bool(label) for label, _ in changed))
    sizes = {"num_images": config.num_images, "num_queries": config.num_train_queries}
    loops = [
        Loop(folder / f"seed{seed}", config.profile, seed, stages, set=config.set, prefix=f"seed {seed}: ", **sizes)
        for seed in seeds
    ]
    for loop in loops:
        measure_world(config, loop)
    compare_styles(config, loops[0])
    follow_training(config, loops[0])
    if with_losses:
        for loop in loops:
            compare_variants(config, loop, LOSSES, OBJECTIVES)
    else:
        compare_variants(config, loops[0], VARIANTS, ABLATIONS)
    # Those that an earlier call left belong to the report if they are of the same studios.
    compared = [
        name
        for name, variants, measured in ((ABLATIONS, VARIANTS, loops[:1]), (OBJECTIVES, LOSSES, loops))
        if all(is_made_of(_table(loop, name), _variants_of(config, loop, variants)) for loop in measured)
    ]
    document = suite_summary.document(folder, seeds, config, compared) | {
        "versions": compare.versions(),
        "created_at": now().isoformat(timespec="seconds"),
    }
    document["seconds"] = {**stages.seconds, "total": round(sum(stages.seconds.values()), 1)}
    document["went_on"] = went_on
    (folder / "report.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return redraw(config)


def redraw(config: EvaluateConfig) -> dict:
    """The page anew from report.json and what lies beside it; nobody is asked again."""
    from lab.suite import report as suite_report  # Jinja and pictures are needed for the page alone

    folder = Path(config.out)
    document, asked = output_files.read_document(folder), output_files.read_config(config)
    (folder / "report.html").write_text(suite_report.page(document, folder, asked), encoding="utf-8")
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
    keep = {"keep_epochs": loop.seed == config.seed}  # of the first studio, for `follow_training`
    both = loop.align(labelled, mode="both", **keep)
    loop.index(both["encoder"])
    text = loop.align(labelled, "align text", mode="text", epochs=TEXT_EPOCHS, **keep)
    loop.index(text["encoder"], "index text")
    world = {"label": labelled, "both": both, "text": text}
    (loop.folder / WORLD).write_text(command.to_json(world) + "\n", encoding="utf-8")
    own = evaluation_of(config, loop, aligned=both["encoder"], text=text["encoder"])
    run = loop.stages.run
    run(f"{loop.prefix}evaluate", "encoders, teacher and judge", lambda: _once(own))
    run(f"{loop.prefix}sweep", "the weights between before and after", lambda: _sweeps(own, loop, world))


def _once(config: EvaluateConfig) -> dict:
    """The evaluation of one studio, unless the same one has been made there."""
    folder, made_of = Path(config.out), _made_of(config)
    if not is_made_of(folder / "series.parquet", made_of):
        compare.compare(config)
        mark(folder / "series.parquet", made_of)
    return output_files.read_document(folder)


def _sweeps(config: EvaluateConfig, loop: Loop, world: dict) -> dict:
    for mode in ("both", "text"):
        child, stands = world[mode]["encoder"], world[mode]["wise_ft_alpha"]
        path, made_of = _table(loop, f"sweep_{mode}"), _made_of(config, encoder=child, alphas=ALPHAS)
        if not is_made_of(path, made_of):
            found = sweep(config, "baseline", child, ALPHAS, child_alpha=stands)
            write_series({str(alpha): series for alpha, series in found.items()}, path, made_of)
    return {}


def _table(loop: Loop, name: str) -> Path:
    return loop.folder / f"{name}.parquet"


def _made_of(config: EvaluateConfig, **others: object) -> dict:
    """What a table is made of: the evaluation, the profile's content, and what else decides its figures."""
    asked = config.model_dump(mode="json", exclude=set(DRAWING))
    return {"config": asked, "profile": command.profile_of(config).model_dump(mode="json"), **others}


def write_series(series: dict[str, dict[str, per_query.Series]], path: Path, made_of: dict) -> None:
    """Values by query of several systems, as `series.parquet` of an evaluation has them."""
    parquet.write_table(pa.Table.from_pylist(output_files.series_rows(series), output_files.SERIES), path)
    mark(path, made_of)


def mark(path: Path, made_of: dict) -> None:
    """Note beside a table, once it is whole, what it was made of."""
    path.with_suffix(".made_of").write_text(command.to_json(made_of), encoding="utf-8")


def is_made_of(path: Path, made_of: dict) -> bool:
    """Whether the table is there and was made of the same: a suite that goes on mixes no old with new."""
    mark = path.with_suffix(".made_of")
    return path.is_file() and mark.is_file() and mark.read_text(encoding="utf-8") == command.to_json(made_of)


def compare_styles(config: EvaluateConfig, loop: Loop) -> None:
    """`styles.parquet` and `styles.json`: what the baseline finds with each rephrasing style."""
    own, path = evaluation_of(config, loop), _table(loop, STYLES)
    made_of = _made_of(own)
    if is_made_of(path, made_of):
        return
    found = loop.stages.run("styles", "six ways to rephrase, without alignment", lambda: styles.measure(own))
    told = {style: {k: v for k, v in of.items() if k != "series"} for style, of in found.items()}
    path.with_suffix(".json").write_text(command.to_json(told) + "\n", encoding="utf-8")
    write_series({style: of["series"] for style, of in found.items()}, path, made_of)


def follow_training(config: EvaluateConfig, loop: Loop) -> None:
    """`epochs_<mode>.parquet`: every figure after each epoch, as trained."""
    own, world = evaluation_of(config, loop), _world(loop)

    def measure() -> dict:
        for mode in ("both", "text"):
            child, training = world[mode]["encoder"], world[mode]["training"]
            path, made_of = _table(loop, f"{CURVE}_{mode}"), _made_of(own, encoder=child, training=training)
            if not is_made_of(path, made_of):
                curve = training_curve(own, "baseline", child, kept_epochs(training))
                write_series({str(epoch): series for epoch, series in curve.items()}, path, made_of)
        return {}

    loop.stages.run("epochs", "every figure after each epoch", measure)


def compare_variants(config: EvaluateConfig, loop: Loop, variants: tuple[Variant, ...], name: str) -> None:
    """`<name>.parquet` and `<name>.json`: a text tower aligned once for each variant."""
    path, made_of = _table(loop, name), _variants_of(config, loop, variants)
    if is_made_of(path, made_of):
        return
    own, world, profile = evaluation_of(config, loop), _world(loop), command.profile_of(config)
    series, told = {}, {}
    for variant in variants:
        labelled, aligned = world["label"], world["text"]  # the profile's own
        label, align = variant.changes(profile)
        if label:
            labelled = loop.label(f"label {variant.name}", **label)
        if label or align:
            changes = {"mode": "text", "epochs": TEXT_EPOCHS} | align
            aligned = loop.align(labelled, f"align {variant.name}", **changes)
        series[variant.name] = sweep(own, "baseline", aligned["encoder"], (1.0,))[1.0]
        told[variant.name] = {
            "table": variant.table,
            "num_preferences": labelled["num_preferences"],
            "own": not (label or align),
        }
    path.with_suffix(".json").write_text(command.to_json(told) + "\n", encoding="utf-8")
    write_series(series, path, made_of)


def _variants_of(config: EvaluateConfig, loop: Loop, variants: tuple[Variant, ...]) -> dict:
    """What a table of variants is made of."""
    world = _world(loop)
    runs = {"run_id": world["label"]["run_id"], "encoder": world["text"]["encoder"]}
    return _made_of(evaluation_of(config, loop), variants=[asdict(variant) for variant in variants], **runs)


def _world(loop: Loop) -> dict:
    return json.loads((loop.folder / WORLD).read_text(encoding="utf-8"))
