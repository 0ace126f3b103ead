"""Runs every verb on one machine: draw, ingest, label, align, index, evaluate, promote, serve.

    kallos demo                  # serves the page until Ctrl-C
    kallos demo --no-serve

Every step calls the verb's own job, so an interrupted demo resumes where it stopped. Writes
`<out>/report.json`, `<out>/evaluate/report.html`, and the tables in `<out>/store`.
"""

import socket
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from cluster import terminal
from cluster.command import merged, output_folder, profile_of, save_config
from cluster.errors import UserError
from jobs.evaluate import job as evaluate
from jobs.evaluate import output_files
from jobs.evaluate.config import EvaluateConfig
from jobs.evaluate.figures.registry import AESTHETIC, METRICS, SYSTEM_TITLES
from jobs.promote import job as promotion
from jobs.promote.config import PromoteConfig
from lab.demo.config import DemoConfig
from lab.evaluation_files import read_config, read_tables
from lab.pipeline import StepRunner, StudioPipeline, check_models
from lab.studio.truth import load_scenes
from lab.suite import people
from serve_app.config import ServeConfig

EXAMPLES = ("red sailboat at sunset", "castle in the snow", "teapot", "horse in a meadow", "bicycle")


def prepare_folder(config: DemoConfig) -> Path:
    """The demo's folder.

    Raises:
        UserError: it contains something else, or a demo of different sizes.
    """
    folder = output_folder(config.out)
    path = folder / "resolved_config.yaml"
    may_differ = {"serve", "port", "out"}  # a demo's folder can be moved
    if path.exists():
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        now = config.model_dump(mode="json")
        changed = [name for name in now if name not in may_differ and before.get(name) != now[name]]
        if changed:
            raise UserError(
                f"{folder} holds a demo with a different {', '.join(changed)}: choose another --out."
            )
    elif any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and contains no demo: choose another --out.")
    save_config(config, folder)
    return folder


def run_steps(config: DemoConfig, pipeline: StudioPipeline) -> dict[str, dict]:
    """All verbs in turn; returns the reports of `label`, `align` and `evaluate`."""
    pipeline.ingest()
    labelled = pipeline.label()
    aligned = pipeline.align(labelled)
    pipeline.index("candidate")
    evaluation = EvaluateConfig(
        num_queries=config.num_eval_queries,
        out=str(pipeline.folder / "evaluate"),
        **pipeline.evaluation_inputs(),
    )
    what = f"{config.num_eval_queries} held-out queries on held-out images"
    report = pipeline.run("evaluate", what, lambda: evaluate.run(evaluation))
    return {"label": labelled, "align": aligned, "evaluate": report}


def promote(config: DemoConfig) -> str:
    """Point `live` to the candidate unless `kallos promote` refuses; returns what was decided."""
    try:
        report = promotion.run(PromoteConfig(profile=config.profile, set=config.set, store=config.store))
    except UserError as error:
        return f"not promoted: {error}"
    drop = report["recall_drop"]
    moved = "" if drop is None else f": recall of the guard changed by {0 - 100 * drop:+.1f} points"
    return f"promoted to live{moved}"


def show(report: dict) -> None:
    """Print the table of figures, the differences in aesthetic@5, and the win rate."""
    systems = list(report["systems"])
    table = Table("", *(SYSTEM_TITLES[system] for system in systems), title="On held-out queries and images")
    for key, metric in METRICS.items():
        values = (report["systems"][system][key]["value"] for system in systems)
        table.add_row(metric.title, *("–" if value is None else f"{value:.3f}" for value in values))
    console = Console()
    with console.capture() as captured:
        console.print(table)
    terminal.say(captured.get().rstrip())
    for name, of_metrics in report["differences"].items():
        terminal.say(f"{name.replace('_', ' ')}: {AESTHETIC} {_with_interval(of_metrics[AESTHETIC], '+.3f')}")
    for name, rates in report["win_rate"].items():
        opponent = SYSTEM_TITLES[name.removeprefix("aligned_vs_")]
        for who, rate in (("simulated people", rates["people"]), ("the judge", rates.get("judge"))):
            if rate:
                terminal.say(f"win rate over the {opponent} by {who}: {_with_interval(rate, '.3f')}")
    if warning := report["judges"]["warning"]:
        terminal.say(f"caution: {warning}")


def _with_interval(figure: dict, form: str) -> str:
    low, high = figure["ci95"]
    return f"{figure['value']:{form}} (95 % interval {low:{form}} to {high:{form}})"


def check_port(config: DemoConfig) -> None:
    """Raise UserError, before any work, if the page cannot be served at the end."""
    settings = merged(profile_of(config).serve, config)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        socket.create_server((settings.host, settings.port), family=family).close()
    except OSError as error:
        raise UserError(
            f"Cannot listen on {settings.host}:{settings.port} ({error.strerror}): give another --port."
        ) from None


def serve(config: DemoConfig) -> None:
    """Serve the page until Ctrl-C or SIGTERM."""
    from serve_app import job as server  # Serve takes seconds to import

    common = {"profile": config.profile, "set": config.set, "store": config.store}
    server.run(ServeConfig(**common, port=config.port, examples=EXAMPLES))


def run(config: DemoConfig) -> dict:
    """The demo; returns the content of report.json.

    Raises:
        UserError: the folder contains something else, or a step fails.
    """
    if config.serve:
        check_port(config)
    output_folder(config.out)
    check_models(config)
    folder = prepare_folder(config)
    config = config.model_copy(update={"store": config.store or str(folder / "store")})
    pipeline = StudioPipeline(
        folder,
        config,
        config.seed,
        StepRunner(total=6),
        num_images=config.num_images,
        num_queries=config.num_queries,
        store=config.store,
    )
    reports = run_steps(config, pipeline)
    report = summary(config, reports, pipeline) | {"promotion": promote(config)}
    output_files.write_document(report, folder)
    show(report)
    terminal.say(
        f"{report['promotion']}\nreport: {folder}/report.json\npage:   {folder}/evaluate/report.html"
    )
    if config.serve:
        serve(config)
    return report


def summary(config: DemoConfig, reports: dict[str, dict], pipeline: StudioPipeline) -> dict:
    """The content of report.json, without the promotion."""
    evaluation, seconds = reports["evaluate"], pipeline.steps.seconds
    folder = pipeline.folder / "evaluate"
    found, latents = read_tables(folder), load_scenes(pipeline.studio)
    num_resamples = read_config(folder, EvaluateConfig).num_resamples
    return {
        "seed": config.seed,
        "num_images": config.num_images,
        "num_queries": reports["label"]["num_queries"],
        "num_preferences": reports["label"]["num_preferences"],
        "encoders": {"baseline": reports["align"]["parent"], "aligned": reports["align"]["encoder"]},
        "systems": evaluation["systems"],
        "best_null": evaluation["best_null"],
        "differences": evaluation["differences"],
        "win_rate": people.win_rates(found, latents, num_resamples=num_resamples, seed=config.seed),
        "judges": evaluation["judges"],
        "seconds": {**seconds, "total": round(sum(seconds.values()), 1)},
        "versions": evaluation["versions"],
    }
