"""The whole loop on one machine: draw, ingest, label, align, index, evaluate, promote, serve.

    kallos demo                  # serves the page until Ctrl-C
    kallos demo --no-serve

Every stage is the verb itself, called as anyone would call it; started again, it goes on where it stopped.
Writes `<out>/report.json`, `<out>/evaluate/report.html`, and the tables in `<out>/store`.
"""

import json
import signal
import threading
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from cluster.command import save_config
from cluster.errors import UserError
from jobs.evaluate import job as evaluate
from jobs.evaluate.config import EvaluateConfig
from jobs.promote import job as promotion
from jobs.promote.config import PromoteConfig
from lab.demo.config import DemoConfig
from lab.loop import Loop, Stages, split
from serve_app.config import ServeConfig

METRICS = (
    ("recall@1", "caption recall@1"),
    ("recall@10", "caption recall@10"),
    ("precision@5", "precision@5"),
    ("aesthetic@5", "aesthetic@5 (inaccurate counts 0)"),
    ("hpir_accuracy", "HPIR accuracy agreement"),
    ("hpir_aesthetic", "HPIR aesthetic agreement"),
)

EXAMPLES = ("red sailboat at sunset", "castle in the snow", "teapot", "horse in a meadow", "bicycle")


def prepare_folder(config: DemoConfig) -> Path:
    """The demo's folder.

    Raises:
        UserError: it holds something else, or a demo of other sizes.
    """
    folder = Path(config.out)
    mark = folder / "resolved_config.yaml"
    same = {"serve", "port"}
    if mark.exists():
        before = yaml.safe_load(mark.read_text(encoding="utf-8"))
        now = config.model_dump(mode="json")
        changed = [name for name in now if name not in same and before.get(name) != now[name]]
        if changed:
            raise UserError(f"{folder} holds a demo with another {', '.join(changed)}: choose another --out.")
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no demo: choose another --out.")
    save_config(config, folder)
    return folder


def all_stages(config: DemoConfig, loop: Loop) -> dict[str, dict]:
    """All verbs in turn; returns the reports of `label`, `align` and `evaluate`."""
    loop.ingest()
    labelled = loop.label()
    aligned = loop.align(labelled)
    loop.index("candidate")
    measured = EvaluateConfig(
        truth=loop.scenes,
        hpir=(f"{loop.scenes}/hpir.parquet",),
        where=split("gallery"),
        num_queries=config.num_eval_queries,
        seed=config.seed,
        out=str(loop.folder / "evaluate"),
        **loop.common,
    )
    report = loop.stages.run(
        "evaluate",
        f"{config.num_eval_queries} held-out queries on images that training never saw",
        lambda: evaluate.run(measured),
    )
    return {"label": labelled, "align": aligned, "evaluate": report}


def promote(config: DemoConfig) -> str:
    """Let `live` name the candidate unless `kallos promote` refuses; returns what was decided."""
    try:
        told = promotion.run(PromoteConfig(profile=config.profile, set=config.set, store=config.store))
    except UserError as error:
        return f"not promoted: {error}"
    drop = told["recall_drop"]
    moved = "" if drop is None else f": recall@10 of the guard set moved by {-100 * drop:+.1f} points"
    return f"promoted to live{moved}"


def show(report: dict, console: Console) -> None:
    """The before/after table."""
    table = Table(title="Before and after, on held-out queries and images")
    table.add_column("")
    for system in ("baseline", "teacher", "aligned"):
        table.add_column(system, justify="right")
    for name, title in METRICS:
        values = (
            report["metrics"].get(system, {}).get(name) for system in ("baseline", "teacher", "aligned")
        )
        table.add_row(title, *("–" if value is None else f"{value:.3f}" for value in values))
    console.print(table)
    win = report["win_rate"]["aligned_vs_baseline"]
    low, high = win["ci95"]
    console.print(
        f"LMM judge, both orders: aligned wins {win['value']:.0%} (95 % interval {low:.0%} to {high:.0%})"
    )


def serve(config: DemoConfig, console: Console) -> None:
    """Serve the page until Ctrl-C or SIGTERM."""
    from serve_app import app  # here: Serve and the server's models take seconds to import

    common = {"profile": config.profile, "set": config.set, "store": config.store}
    address = app.deploy(ServeConfig(**common, port=config.port, examples=EXAMPLES))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    console.print(f"\n[bold]Search both systems side by side: {address}[/]  (Ctrl-C ends it)")
    stop.wait()
    app.shutdown()


def run(config: DemoConfig) -> dict:
    """The demo; returns the content of report.json.

    Raises:
        UserError: the folder holds something else, or a stage refuses.
    """
    folder = prepare_folder(config)
    config = config.model_copy(update={"store": config.store or str(folder / "store")})
    stages = Stages(total=6)
    sizes = {"num_images": config.num_images, "num_queries": config.num_queries}
    loop = Loop(
        folder, config.profile, config.seed, stages, set=config.set, store=config.store, **sizes
    )
    results = all_stages(config, loop)
    report = summary(config, results, stages.seconds)
    path = folder / "report.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    show(report, stages.console)
    stages.console.print(f"{report['promotion']}\nreport: {path}\npage:   {folder}/evaluate/report.html")
    if config.serve:
        serve(config, stages.console)
    return report


def summary(config: DemoConfig, results: dict[str, dict], seconds: dict[str, float]) -> dict:
    """The content of report.json; promotes on the way."""
    evaluation = results["evaluate"]
    metrics = {
        system: {name: figures.get(name) for name, _ in METRICS}
        for system, figures in evaluation["metrics"].items()
    }
    return {
        "seed": config.seed,
        "num_images": config.num_images,
        "num_queries": results["label"]["num_queries"],
        "num_preferences": results["label"]["num_preferences"],
        "encoders": {"baseline": results["align"]["parent"], "aligned": results["align"]["encoder"]},
        "metrics": metrics,
        "win_rate": {"aligned_vs_baseline": evaluation["win_rate"]["aligned_vs_baseline"]},
        "promotion": promote(config),
        "seconds": {**seconds, "total": round(sum(seconds.values()), 1)},
        "versions": evaluation["versions"],
    }
