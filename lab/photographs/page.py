"""report.html of `kallos photographs`: how often each method agrees with people."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from jobs.evaluate.page import render
from lab.photographs.dataset import SCOPES
from lab.suite import charts


def page(document: Mapping) -> str:
    """One self-contained HTML page; everything that comes from data is escaped."""
    rows = [document["floor"], *document["methods"], document["ceiling"], document["subject"]]
    return (
        render.templates("lab.photographs")
        .get_template("page.html.j2")
        .render(
            report=document,
            rows=rows,
            scopes={scope: scope.replace("_", " ").replace("same", "of one") for scope in SCOPES},
            chart=Markup(agreement_chart(rows)),
        )
    )


def agreement_chart(rows: Sequence[Mapping]) -> str:
    """Agreement with its interval as SVG: one line for each method, one panel for each scope."""
    with rc_context(charts.STYLE):
        figure = Figure(figsize=(9, 0.32 * len(rows) + 0.8))
        panels = figure.subplots(1, len(SCOPES), sharey=True)
        for axes, scope in zip(panels, SCOPES, strict=True):
            for line, row in enumerate(rows):
                if row[scope]["ci95"]:
                    axes.plot(row[scope]["ci95"], (line, line), color=charts.INK, lw=1.4)
                    axes.plot(row[scope]["value"], line, "o", color=charts.COLOURS["both"])
            axes.axvline(0.5, color=charts.INK, lw=0.8, ls=":")
            axes.set_xlabel(f"agreement with the majority, {scope.replace('_', ' ')}")
        panels[0].set_yticks(range(len(rows)), [row["name"] for row in rows])
        panels[0].invert_yaxis()
        figure.tight_layout()
        return charts.svg(figure)
