"""report.html of a suite: one self-contained page to send to a colleague.

No scripts and no external files: styles are inline, charts are inline SVG, images are data URIs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from cluster.tables import Store
from jobs.evaluate.config import TOP_K, PageOptions
from jobs.evaluate.figures import compared
from jobs.evaluate.figures.registry import METRICS, SYSTEM_TITLES
from jobs.evaluate.page import render
from lab.evaluation_files import read_tables
from lab.suite import charts
from lab.suite.config import SuiteConfig
from lab.suite.styles import STYLE_METRICS


def page(document: Mapping, folder: Path, config: SuiteConfig, options: PageOptions) -> str:
    """The page; its contact sheets show queries of the first studio, drawn by seed."""
    first, seed = folder / f"seed{document['seeds'][0]}", document["seeds"][0]
    found = read_tables(first / "evaluate")
    drawn, losses = render.sheets(found, Store(str(first / "store")), options, seed)
    drawings = {
        "trade_off": charts.trade_off(document["sweep"]),
        "win_rates": charts.win_rates(document["win_rate"]),
        "training": charts.training(document["epochs"]),
    }
    if document["training"]:
        drawings["metrics_by_epoch"] = charts.metrics_by_epoch(document["training"])
    template = render.templates("lab.suite").get_template("suite.html.j2")
    return template.render(
        report=document,
        rows=headline(document),
        titles=SYSTEM_TITLES,
        metric_titles={key: metric.title for key, metric in (METRICS | STYLE_METRICS).items()},
        style_metrics=list(STYLE_METRICS),
        style_sheets=style_sheets(document["styles"], Store(str(first / "store")), options),
        systems=list(document["systems"]),
        differences=[compared.title(name) for name in document["differences"]],
        charts={name: Markup(drawing) for name, drawing in drawings.items()},
        sheets=drawn,
        losses=losses,
        config=config,
        top_k=TOP_K,
    )


def style_sheets(rows: Sequence[Mapping], store: Store, options: PageOptions) -> list[render.Sheet]:
    """Each shown query with its results in every rephrasing style (figure 3 of the paper)."""
    ids = {image_id for row in rows for shown in row["shown"].values() for image_id in shown}
    images = {
        row["image_id"]: render.Cell(
            render.thumbnail(row["preview"], options.thumb_px), row["caption"], None, None
        )
        for row in store.rows_of("images", ["image_id", "preview", "caption"], ids)
    }
    return [
        render.Sheet(
            query,
            "",
            [
                render.Line("rephrase", row["name"], [images[i] for i in row["shown"][query]], None)
                for row in rows
            ],
            None,
            "",
        )
        for query in (list(rows[0]["shown"])[: options.num_sheets] if rows else ())
    ]


def headline(document: Mapping) -> list[dict]:
    """Rows of the tables of figures: a metric, each system's figure, and the differences."""
    return [
        {
            "metric": metric,
            "figures": [of[key] for of in document["systems"].values()],
            "differences": [of[key] for of in document["differences"].values()],
        }
        for key, metric in METRICS.items()
        if document["systems"]["baseline"][key]["value"] is not None
    ]
