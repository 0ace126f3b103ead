"""Evaluates alignment on several studios, from the profile's checkpoints alone.

    kallos suite                       # -> runs/suite/report.json and report.html
    kallos suite --quick               # one studio, fewer queries, no ablations
    kallos suite --kind objectives     # on the same studios, with the preference losses compared
    kallos suite --seed 100            # on the studios on which settings are chosen

For each seed a studio is drawn, ingested, labelled, and aligned in both modes. The baseline, the nulls, the
teacher and both aligned encoders are compared, and so are interpolated weights (WiSE-FT). On the first studio
each epoch is measured, the rephrasing styles are compared, and so are sources of preferences and shapes of
the partial order (in mode `text`, which embeds no image). An interrupted suite resumes where it stopped:
`<out>/seed<N>` keeps everything of a studio, and report.json is made from it.
"""

from pathlib import Path
from typing import Any

from cluster import command
from cluster.profile import Profile
from cluster.tables import now
from jobs.evaluate import job as evaluate
from jobs.evaluate import output_files
from jobs.evaluate.config import PROTOCOLS, EvaluateConfig, MeasureOptions, PageOptions
from lab.evaluation_files import read_config, read_document
from lab.pipeline import StepRunner, StudioPipeline, check_models
from lab.studio.truth import load_scenes
from lab.suite import page, styles, summary, variants
from lab.suite.config import SuiteConfig
from lab.suite.sweep import ALPHAS, sweep, training_curve
from lab.suite.tables import has_origin, mark, origin_of, write_values
from lab.suite.targets import compare, load_targets
from lab.suite.variants import ABLATIONS, OBJECTIVES, WORLD, compare_variants, read_world, table_path

STYLES, EPOCHS = "styles", "epochs"


def run(config: SuiteConfig) -> dict:
    """Run what is missing and write the report; returns the content of report.json.

    Raises UserError if the targets are invalid or a step fails.
    """
    config = config.limited()
    targets, profile, folder = load_targets(config.targets), command.profile_of(config), Path(config.out)
    command.output_folder(folder)
    check_models(config, judge=config.judge)
    command.save_config(config, folder)
    seeds = [config.seed + index for index in range(config.num_seeds)]
    resumed = any((folder / f"seed{seed}" / WORLD).is_file() for seed in seeds)
    steps = StepRunner(total=num_steps(config, profile))
    pipelines = [
        StudioPipeline(
            folder / f"seed{seed}",
            config,
            seed,
            steps,
            num_images=config.num_images,
            num_queries=config.num_train_queries,
            prefix=f"seed {seed}: ",
        )
        for seed in seeds
    ]
    for pipeline in pipelines:
        measure_studio(config, pipeline)
    measured = [] if config.quick else measure_ablations(config, pipelines)
    document = summary.document(folder, seeds, config, measured)
    document |= {
        "targets": compare(targets, document),
        "versions": evaluate.versions(),
        "created_at": now().isoformat(timespec="seconds"),
        "seconds": {**steps.seconds, "total": round(sum(steps.seconds.values()), 1)},
        "resumed": resumed,
    }
    output_files.write_document(document, folder)
    return draw_page(folder, config)


def num_steps(config: SuiteConfig, profile: Profile) -> int:
    """Number of steps of a suite that resumes nothing."""
    if config.quick:
        return 9
    compared = (
        variants.OBJECTIVE_VARIANTS * config.num_seeds
        if config.kind == "objectives"
        else variants.ABLATION_VARIANTS
    )
    changes = [variant.changes(profile) for variant in compared]
    return 9 * config.num_seeds + 2 + sum(1 + bool(label) for label, align in changes if label or align)


def draw_page(folder: Path, options: PageOptions) -> dict:
    """Draw report.html from report.json and the files beside it; returns report.json."""
    document = read_document(folder)
    config = read_config(folder, SuiteConfig)
    (folder / "report.html").write_text(page.page(document, folder, config, options), encoding="utf-8")
    return document | {"report": str(folder / "report.html")}


def evaluation_of(config: SuiteConfig, pipeline: StudioPipeline, **changes: Any) -> EvaluateConfig:
    """The evaluation of one studio, on queries and images that are never used in training."""
    names = {**MeasureOptions.model_fields, **PageOptions.model_fields}
    options: dict[str, Any] = {name: getattr(config, name) for name in names}
    options |= pipeline.evaluation_inputs()
    options |= {"protocols": PROTOCOLS, "out": str(pipeline.folder / "evaluate")}
    return EvaluateConfig(**options | changes)


def measure_studio(config: SuiteConfig, pipeline: StudioPipeline) -> None:
    """Draw, label, align in both modes, evaluate and sweep one studio."""
    pipeline.ingest()
    labelled = pipeline.label()
    # Of the first studio, for `measure_epochs`.
    keep: dict[str, Any] = {"keep_epochs": pipeline.seed == config.seed and not config.quick}
    both = pipeline.align(labelled, mode="both", **keep)
    pipeline.index(both["encoder"])
    text = pipeline.align(labelled, "align text", mode="text", epochs=variants.TEXT_EPOCHS, **keep)
    pipeline.index(text["encoder"], "index text")
    world = {"label": labelled, "both": both, "text": text}
    (pipeline.folder / WORLD).write_text(command.to_json(world) + "\n", encoding="utf-8")
    own = evaluation_of(config, pipeline, aligned=both["encoder"], text=text["encoder"])
    pipeline.run("evaluate", "encoders, teacher and judge", lambda: _evaluate_once(own))
    pipeline.run("sweep", "weights between the two encoders", lambda: _sweep_modes(own, pipeline, world))


def _evaluate_once(config: EvaluateConfig) -> dict:
    """Evaluate one studio, unless its folder holds this evaluation already; returns report.json."""
    folder, origin = Path(config.out), origin_of(config)
    if not has_origin(folder / "series.parquet", origin):
        evaluate.run(config)
        mark(folder / "series.parquet", origin)
    return read_document(folder)


def _sweep_modes(config: EvaluateConfig, pipeline: StudioPipeline, world: dict) -> dict:
    for mode in ("both", "text"):
        child, child_alpha = world[mode]["encoder"], world[mode]["wise_ft_alpha"]
        path = table_path(pipeline, f"sweep_{mode}")
        origin = origin_of(config, encoder=child, alphas=ALPHAS)
        if not has_origin(path, origin):
            found = sweep(config, "baseline", child, ALPHAS, child_alpha=child_alpha)
            write_values({str(alpha): values for alpha, values in found.items()}, path, origin)
    return {}


def measure_ablations(config: SuiteConfig, pipelines: list[StudioPipeline]) -> list[str]:
    """Measure what is compared beside the systems; returns the names of its tables."""
    compare_styles(config, pipelines[0])
    measure_epochs(config, pipelines[0])
    return [STYLES, EPOCHS, *compare_settings(config, pipelines)]


def compare_styles(config: SuiteConfig, pipeline: StudioPipeline) -> None:
    """`styles.parquet` and `styles.json`: what the baseline finds with each rephrasing style."""
    own, path = evaluation_of(config, pipeline), table_path(pipeline, STYLES)
    origin = origin_of(own)
    if has_origin(path, origin):
        return
    what, latents = "six ways to rephrase, by the baseline", load_scenes(pipeline.studio)
    found = pipeline.steps.run("styles", what, lambda: styles.measure(own, latents))
    reports = {style: {k: v for k, v in of.items() if k != "values"} for style, of in found.items()}
    path.with_suffix(".json").write_text(command.to_json(reports) + "\n", encoding="utf-8")
    write_values({style: of["values"] for style, of in found.items()}, path, origin)


def measure_epochs(config: SuiteConfig, pipeline: StudioPipeline) -> None:
    """`epochs_<mode>.parquet`: every metric after each epoch, as trained."""
    own, world = evaluation_of(config, pipeline), read_world(pipeline)

    def measure() -> dict:
        for mode in ("both", "text"):
            child, training = world[mode]["encoder"], world[mode]["training"]
            path = table_path(pipeline, f"{EPOCHS}_{mode}")
            origin = origin_of(own, encoder=child, training=training)
            if not has_origin(path, origin):
                curve = training_curve(own, "baseline", child, training)
                write_values({str(epoch): values for epoch, values in curve.items()}, path, origin)
        return {}

    pipeline.steps.run("epochs", "every metric after each epoch", measure)


def compare_settings(config: SuiteConfig, pipelines: list[StudioPipeline]) -> list[str]:
    """Compare the variants of the suite's kind; returns the tables that belong to the report.

    The tables of an earlier suite of the other kind are included if it used the same studios.
    """
    kinds = {
        ABLATIONS: ("full", variants.ABLATION_VARIANTS, pipelines[:1]),
        OBJECTIVES: ("objectives", variants.OBJECTIVE_VARIANTS, pipelines),
    }
    compared = []
    for name, (kind, rows, studios) in kinds.items():
        evaluations = [(evaluation_of(config, pipeline), pipeline) for pipeline in studios]
        if kind == config.kind:
            for own, pipeline in evaluations:
                compare_variants(own, pipeline, rows, name)
        if all(
            has_origin(table_path(pipeline, name), variants.origin_of_variants(own, pipeline, rows))
            for own, pipeline in evaluations
        ):
            compared.append(name)
    return compared
