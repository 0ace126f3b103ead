"""report.html of a suite: one self-contained page to send to a colleague.

No scripts and no external files: styles are inline, charts are inline SVG, images are data URIs.
"""

from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup

from cluster.tables import Store
from jobs.evaluate.config import SYSTEMS, TOP_K, PageOptions
from jobs.evaluate.figures.registry import METRICS, SYSTEM_TITLES
from jobs.evaluate.page import render
from lab.evaluation_files import read_tables
from lab.suite import charts
from lab.suite.config import SuiteConfig
from lab.suite.styles import ACCURATE_BEAUTY


def page(document: Mapping, folder: Path, config: SuiteConfig, options: PageOptions) -> str:
    """The page; its contact sheets show queries of the first studio, drawn by seed."""
    first, seed = folder / f"seed{document['seeds'][0]}", document["seeds"][0]
    found = read_tables(first / "evaluate")
    drawn, losses = render.sheets(found, Store(str(first / "store")), options, seed)
    drawings = {
        "trade_off": charts.trade_off(document["sweep"]),
        "win_rates": charts.win_rates(document["win_rate"]),
        "training": charts.training(document["epochs"]),
        "metrics_by_epoch": charts.metrics_by_epoch(document["training"]),
    }
    template = render.templates("lab.suite").get_template("suite.html.j2")
    return template.render(
        report=document,
        rows=headline(document),
        titles=SYSTEM_TITLES,
        metric_titles={key: metric.title for key, metric in METRICS.items()}
        | {ACCURATE_BEAUTY.key: ACCURATE_BEAUTY.title},
        systems=[system for system in SYSTEMS if system in document["metrics"]],
        charts={name: Markup(drawing) for name, drawing in drawings.items()},
        sheets=drawn,
        losses=losses,
        config=config,
        top_k=TOP_K,
    )


def headline(document: Mapping) -> list[dict]:
    """Rows of the table of figures: a metric, each system's figure, and both differences."""
    return [
        {
            "metric": metric,
            "figures": [(s, document["metrics"][s].get(key)) for s in SYSTEMS if s in document["metrics"]],
            "differences": [document["difference"][name].get(key) for name in ("aligned", "text")],
        }
        for key, metric in METRICS.items()
        if document["metrics"]["baseline"].get(key)
    ]
