"""The suite's charts as inline SVG, drawn by matplotlib, readable on a light and on a dark page."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jobs.evaluate.figures.registry import AESTHETIC, METRICS

INK = "#7c7c80"  # a grey that is readable on white and on near black
COLOURS = {"both": "#0a8f85", "text": "#5b70d8"}
PANELS_PER_ROW = 3
NAMES = {"both": "both towers", "text": "text tower"}
STYLE: Any = {
    "svg.hashsalt": "kallos",  # the same figures give the same page
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def svg(figure: Figure) -> str:
    """The figure as an <svg> element."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


RETRIEVAL = ("recall@1", "recall@10", "zero_shot")


def trade_off(sweep: Mapping[str, Sequence[Mapping]]) -> str:
    """aesthetic@k against ordinary retrieval, from the baseline (a = 0) to the end of training (a = 1)."""
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 3.4))
        panels = figure.subplots(1, len(RETRIEVAL), sharey=True)
        for axes, metric in zip(panels, RETRIEVAL, strict=True):
            for mode, rows in sweep.items():
                _curve(axes, rows, metric, mode)
            axes.set_xlabel(METRICS[metric].title)
        panels[0].set_ylabel(METRICS[AESTHETIC].title)
        panels[0].legend(loc="lower left")
        return svg(figure)


def _curve(axes: Axes, rows: Sequence[Mapping], metric: str, mode: str) -> None:
    rows = [row for row in rows if metric in row]
    points = [(row[metric], row[AESTHETIC]) for row in rows]
    x, y = ([pair[i]["value"] for pair in points] for i in (0, 1))
    spread = [[abs(f["value"] - f["ci95"][end]) for _, f in points] for end in (0, 1)]
    axes.errorbar(
        x, y, spread, color=COLOURS[mode], marker="o", ms=4, lw=1.4, elinewidth=0.6, label=NAMES[mode]
    )
    for row, a, b in zip(rows, x, y, strict=True):
        axes.annotate(f"a={float(row['name']):g}", (a, b), (5, -9), textcoords="offset points", fontsize=7)


def win_rates(rates: Mapping[str, Mapping[str, Mapping]]) -> str:
    """Win rates of both modes with their intervals, over each opponent and by each of those who judge."""
    rows = [
        (f"{NAMES[mode]} over {opponent}, {who}", rates[f"{system}_vs_{opponent}"][who], COLOURS[mode])
        for system, mode in (("aligned", "both"), ("text", "text"))
        for opponent in ("baseline", "suffix")
        for who in ("people", "judge")
        if rates.get(f"{system}_vs_{opponent}", {}).get(who, {}).get("value") is not None
    ]
    with rc_context(STYLE):
        figure = Figure(figsize=(6, 0.4 * len(rows) + 0.8))
        axes = figure.subplots()
        for index, (_, rate, colour) in enumerate(rows):
            low, high = rate["ci95"]
            axes.barh(index, rate["value"], height=0.62, color=colour, alpha=0.85)
            axes.plot((low, high), (index, index), color=INK, lw=1.6)
            label = (
                f"{rate['value']:.2f} ({low:.2f} to {high:.2f}): "
                f"{rate['wins']} won, {rate['ties']} tied, {rate['losses']} lost"
            )
            axes.annotate(label, (1.02, index), va="center", xycoords=("axes fraction", "data"))
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        axes.invert_yaxis()
        axes.axvline(0.5, color=INK, lw=0.8, ls=":")
        axes.set_xlim(0, 1)
        axes.set_xlabel("win rate (0.5: no difference)")
        return svg(figure)


CURVES = (
    ("loss_preference", "preference loss"),
    ("rewards/accuracies", "pairs in the right order"),
    ("loss_pt", "contrastive loss"),
    ("recall@10", "guard recall@10"),
)


def training(epochs: Mapping[str, Sequence[Sequence[Mapping]]]) -> str:
    """The training metrics of each epoch: a thin line per seed and a thick one for their mean."""
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 2.6))
        panels = figure.subplots(1, len(CURVES))
        for axes, (metric, title) in zip(panels, CURVES, strict=True):
            for mode, seeds in epochs.items():
                lines = [[epoch[metric] for epoch in seed if metric in epoch] for seed in seeds]
                for line in lines:
                    axes.plot(range(1, len(line) + 1), line, color=COLOURS[mode], lw=0.7, alpha=0.5)
                means = [sum(v) / len(v) for v in zip(*lines, strict=False)]
                axes.plot(range(1, len(means) + 1), means, color=COLOURS[mode], lw=1.8, label=NAMES[mode])
            axes.set_title(title, color=INK, fontsize=9)
            axes.set_xlabel("epoch")
        panels[0].legend()
        figure.tight_layout()
        return svg(figure)


def metrics_by_epoch(training: Mapping[str, Sequence[Mapping]]) -> str:
    """Every metric after each epoch, with its interval; epoch 0 is the baseline."""
    rows = [row for of_mode in training.values() for row in of_mode]
    names = [name for name in METRICS if rows and all(name in row for row in rows)]
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 2.3 * -(-len(names) // PANELS_PER_ROW)))
        panels = figure.subplots(-(-len(names) // PANELS_PER_ROW), PANELS_PER_ROW, squeeze=False).flatten()
        for axes, name in zip(panels, names, strict=False):
            for mode, of_mode in training.items():
                found, epochs = [row[name] for row in of_mode], [int(row["name"]) for row in of_mode]
                low, high = zip(*(one["ci95"] for one in found), strict=True)
                axes.fill_between(epochs, low, high, color=COLOURS[mode], alpha=0.15, lw=0)
                axes.plot(epochs, [one["value"] for one in found], color=COLOURS[mode], marker="o", ms=3,
                          lw=1.4, label=NAMES[mode])  # fmt: skip
            axes.set_title(METRICS[name].title, color=INK, fontsize=9)
            axes.set_xticks(epochs)
        for axes in panels[len(names) :]:
            axes.set_visible(False)
        panels[0].legend(fontsize=7)
        figure.tight_layout()
        return svg(figure)
