"""Writes the measured tables of README.md and docs from a suite's report, never by hand.

    python -m lab.suite.results runs/suite/report.json

Copies the figures to docs/results.json, and writes a short table into README.md, the long tables into
docs/results.md, and the table of metrics into docs/evaluation.md, each between two marks. Without an argument
the tables are written again from docs/results.json. A test compares them with docs/results.json.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cluster.errors import UserError
from cluster.profile import ROOT
from jobs.evaluate.figures.registry import AESTHETIC, METRICS, PRECISION, RECALL, SYSTEM_TITLES
from lab.suite.styles import ACCURATE_BEAUTY

RESULTS = ROOT / "docs" / "results.json"
BEGIN, END = "<!-- written by lab/suite/results.py -->", "<!-- end -->"
README_METRICS = (AESTHETIC, "hpir_aesthetic", PRECISION, RECALL, "zero_shot")
README_SYSTEMS = ("baseline", "teacher", "aligned")
# What docs/results.json keeps of a report.
KEPT = ("suite", "seeds", "num_images", "num_queries", "num_preferences", "metrics", "difference", "gain")
KEPT += ("win_rate", "judge_table", "styles", "ablations", "objectives", "targets", "machine")
KEPT += ("wise_ft_alpha", "sweep", "training", "seconds", "created_at")


def readme(results: Mapping) -> str:
    """The short table of README.md."""
    rows = [
        [_title(key), *(_value(results["metrics"][system][key]) for system in README_SYSTEMS),
         _signed(results["difference"]["aligned"][key])]
        for key in README_METRICS
    ]  # fmt: skip
    return table(
        ["", *(SYSTEM_TITLES[s] for s in README_SYSTEMS), "aligned − baseline (95 % interval)"], rows
    )


def results_page(results: Mapping) -> str:
    """The tables of docs/results.md."""
    metrics = [AESTHETIC, PRECISION, RECALL, "hpir_aesthetic", "hpir_accuracy"]
    sections = [
        _provenance(results),
        table(["", *(SYSTEM_TITLES[s] for s in results["metrics"])], _systems(results)),
        "### Targets",
        table(["quantity", "target", "reached", ""], _targets(results)),
        "### Win rates over the baseline",
        table(["", "win rate", "wins", "ties", "losses"], _win_rates(results)),
        "### The judge's protocols",
        table(
            ["protocol", "order consistency", "decided", "win rate", "agreement with people"],
            _protocols(results),
        ),
        "### Rephrasing styles",
        f"The baseline's results with the queries rephrased in each style, studio {results['seeds'][0]}.",
        _rows_table("style", results["styles"], [PRECISION, AESTHETIC, ACCURATE_BEAUTY.key]),
        "### Ablations",
        f"Text towers, each aligned with one setting changed, studio {results['seeds'][0]}.",
        *(
            _rows_table(title, [row for row in results["ablations"] if row["table"] == name], metrics)
            for name, title in (("source", "source of the preferences"), ("grid", "partial order"))
        ),
        "### WiSE-FT: weights between the baseline (a = 0) and the end of training (a = 1)",
        *(
            _rows_table(f"a, {towers}", results["sweep"][mode], [*metrics[:3], "recall@1", "zero_shot"])
            for mode, towers in (("both", "both towers"), ("text", "text tower only"))
        ),
    ]
    return "\n\n".join(sections)


def metrics_page(results: Mapping) -> str:
    """The table of metrics of docs/evaluation.md."""
    rows = [[f"`{m.key}`", m.title, f"{m.meaning} ({m.unit}; {m.direction})"] for m in METRICS.values()]
    return table(["key", "metric", "meaning"], rows)


PAGES = {"README.md": readme, "docs/results.md": results_page, "docs/evaluation.md": metrics_page}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _title(key: str) -> str:
    return (METRICS | {ACCURATE_BEAUTY.key: ACCURATE_BEAUTY})[key].title


def _value(figure: Mapping | None) -> str:
    return "–" if not figure or figure.get("value") is None else f"{figure['value']:.3f}"


def _signed(figure: Mapping | None) -> str:
    if not figure or figure.get("value") is None:
        return "–"
    interval = f" ({figure['ci95'][0]:+.3f} to {figure['ci95'][1]:+.3f})" if figure["ci95"] else ""
    return f"{figure['value']:+.3f}{interval}"


def _with_interval(figure: Mapping | None) -> str:
    interval = f" ({figure['ci95'][0]:.3f} to {figure['ci95'][1]:.3f})" if figure and figure["ci95"] else ""
    return _value(figure) + interval


def _provenance(results: Mapping) -> str:
    machine = results["machine"]
    return (
        f"`kallos suite`, {results['created_at'][:10]}, on {machine['num_cores']} cores of "
        f"{machine['processor']}, {machine['memory_bytes'] / 2**30:.0f} GiB, no GPU. Mean of studios "
        f"{', '.join(map(str, results['seeds']))}, each with {results['num_images']:,} gallery images and "
        f"{results['num_queries']} held-out queries. In brackets: the 95 % interval over queries of the "
        "difference from the baseline. The people who vote are simulated."
    )


def _systems(results: Mapping) -> list[list[str]]:
    return [[_title(key), *(_cell(results, system, key) for system in results["metrics"])] for key in METRICS]


def _cell(results: Mapping, system: str, key: str) -> str:
    change = results["difference"].get(system, {}).get(key)
    if not change or change.get("value") is None:
        return _value(results["metrics"][system].get(key))
    low, high = change["ci95"]
    return f"{_value(results['metrics'][system].get(key))} ({low:+.3f} to {high:+.3f})"


def _targets(results: Mapping) -> list[list[str]]:
    return [
        [row["quantity"], f"at least {row['target']:+.2f}", _signed(row), "met" if row["met"] else "missed"]
        for row in results["targets"]
    ]


def _win_rates(results: Mapping) -> list[list[str]]:
    return [
        [f"{SYSTEM_TITLES[system]}, by {title}", _with_interval(rate), *(str(rate[key]) for key in counts)]
        for system, rates in results["win_rate"].items()
        for counts in [("wins", "ties", "losses")]
        for title, rate in (("the judge", rates["judge"]), ("simulated people", rates["people"]))
    ]


def _protocols(results: Mapping) -> list[list[str]]:
    return [
        [
            f"`{row['protocol']}`",
            "both orders must agree" if row["order_consistency"] else "one order, at random",
            *(_with_interval(row[key]) for key in ("decided", "win_rate", "agreement")),
        ]
        for row in results["judge_table"]
    ]


def _rows_table(first: str, rows: Iterable[Mapping], metrics: Sequence[str]) -> str:
    return table(
        [first, *map(_title, metrics)],
        [[row["name"], *(_with_interval(row.get(metric)) for metric in metrics)] for row in rows],
    )


def insert(page: str, text: str, name: str) -> str:
    """The page with the text between its marks. Raises UserError if a mark is missing."""
    if BEGIN not in page or END not in page:
        raise UserError(f"{name} lacks the marks {BEGIN!r} and {END!r}")
    before, rest = page.split(BEGIN, 1)
    return f"{before}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}"


def main(argv: Sequence[str]) -> None:
    """Copy the report's figures and write the tables."""
    if len(argv) > 1:
        sys.exit("usage: python -m lab.suite.results [runs/suite/report.json]")
    if argv:
        report = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
        kept = {name: report[name] for name in KEPT}
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    for name, text_of in PAGES.items():
        path = ROOT / name
        page = insert(path.read_text(encoding="utf-8"), text_of(results), name)
        path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
