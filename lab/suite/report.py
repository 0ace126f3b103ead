"""report.html of a suite: one self-contained page to send to a colleague.

No scripts and nothing from elsewhere: styles are inline, charts are inline SVG, images are data URIs.
"""

from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup

from cluster.tables import Store
from jobs.evaluate import output_files
from jobs.evaluate.config import DIVERSITY_K, SYSTEMS, TOP_K, EvaluateConfig
from jobs.evaluate.page import render
from lab.suite import charts

ROWS = (
    "recall@1",
    "recall@10",
    f"precision@{TOP_K}",
    f"aesthetic@{TOP_K}",
    "hpir_accuracy",
    "hpir_aesthetic",
    "zero_shot",
    f"vendi@{DIVERSITY_K}",
)


def page(document: Mapping, folder: Path, config: EvaluateConfig) -> str:
    """The page; the contact sheets are the first studio's, drawn by seed. Everything from data is escaped."""
    first = folder / f"seed{document['seeds'][0]}"
    own = config.model_copy(update={"seed": document["seeds"][0]})
    found = output_files.read(first / "evaluate")
    store = Store(str(first / "store"))
    drawn, losses = render.sheets(output_files.read_document(first / "evaluate"), found, store, own)
    drawings = {
        "trade_off": charts.trade_off(document["sweep"]),
        "win_rates": charts.win_rates(document["win_rate"]),
        "training": charts.training(document["epochs"]),
        "followed": charts.followed(document["training"]),
    }
    template = render.templates("lab.suite").get_template("suite.html.j2")
    return template.render(
        report=document,
        rows=headline(document),
        labels=render.LABELS,
        systems=SYSTEMS,
        charts={name: Markup(drawing) for name, drawing in drawings.items()},
        sheets=drawn,
        losses=losses,
        config=config,
        top_k=TOP_K,
        truth_known=True,
    )


def headline(document: Mapping) -> list[dict]:
    """Rows of the table: a metric, what it means, each system's figure, and both differences."""
    return [
        {
            "name": name,
            "meaning": render.MEANINGS[name],
            "figures": [(system, document["metrics"][system].get(name)) for system in SYSTEMS],
            "differences": [
                (found, render.verdict_on(found))
                for found in (document["difference"][c].get(name) for c in ("aligned", "text"))
            ],
        }
        for name in ROWS
        if document["metrics"]["baseline"].get(name)
    ]
