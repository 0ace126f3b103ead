"""Writes the measured tables of README.md and docs from a suite's report, never by hand.

    python -m lab.suite.results runs/suite/report.json

Copies the figures to docs/results.json, and writes short tables into README.md, the long tables into
docs/results.md, and the table of metrics into docs/evaluation.md, each between two marks. Without an argument
the tables are written again from docs/results.json. A test compares them with docs/results.json.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cluster.errors import UserError
from cluster.profile import ROOT
from jobs.evaluate.figures import compared
from jobs.evaluate.figures.registry import AESTHETIC, METRICS, PRECISION, RECALL, SYSTEM_TITLES
from lab.suite.styles import STYLE_METRICS

RESULTS = ROOT / "docs" / "results.json"
BEGIN, END = "<!-- written by lab/suite/results.py -->", "<!-- end -->"
README_METRICS = (AESTHETIC, "hpir_aesthetic", PRECISION, RECALL, "zero_shot")
README_DIFFERENCES = ("aligned_minus_baseline", "aligned_minus_best_null", "teacher_minus_best_null")
README_DIFFERENCES += ("text_minus_best_null",)
# What docs/results.json keeps of a report.
KEPT = (
    "suite",
    "seeds",
    "intervals_over",
    "num_images",
    "num_queries",
    "num_preferences",
    "systems",
    "nulls",
)
KEPT += ("best_null", "differences", "share_of_teacher_gain", "win_rate", "judge_table", "styles")
KEPT += ("ablations", "objectives", "targets", "machine", "wise_ft_alpha", "sweep", "training", "seconds")
KEPT += ("created_at",)


def readme(results: Mapping) -> str:
    """The short tables of README.md."""
    shown = [name for name in README_DIFFERENCES if name in results["differences"]]
    return "\n\n".join(
        [_systems(results, README_METRICS), _differences(results, README_METRICS, shown), _null(results)]
    ).strip()


def results_page(results: Mapping) -> str:
    """The tables of docs/results.md."""
    metrics = [AESTHETIC, PRECISION, RECALL, "hpir_aesthetic", "hpir_accuracy"]
    sections = [
        _provenance(results),
        _systems(results, tuple(METRICS)),
        "### Differences",
        f"Paired; in brackets the 95 % interval over {results['intervals_over']}. {_null(results)}".strip(),
        _differences(results, tuple(METRICS), list(results["differences"])),
        "### Targets",
        table(["quantity", "target", "reached", ""], _targets(results)),
        "### Win rates",
        table(["", "win rate", "wins", "ties", "losses"], _win_rates(results)),
        "### The judge's protocols",
        _protocols(results),
        "### Rephrasing styles",
        f"The baseline's results with the queries rephrased in each style, studio {results['seeds'][0]}.",
        _rows_table("style", results["styles"], list(STYLE_METRICS)),
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
    return (METRICS | STYLE_METRICS)[key].title


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
        f"{results['num_queries']} held-out queries. The people who vote are simulated."
    )


def _systems(results: Mapping, metrics: Sequence[str]) -> str:
    """The table of figures: a row per metric, a column per system."""
    of = results["systems"]
    rows = [[_title(key), *(_value(of[system].get(key)) for system in of)] for key in metrics]
    return table(["", *(SYSTEM_TITLES[system] for system in of)], rows)


def _differences(results: Mapping, metrics: Sequence[str], names: Sequence[str]) -> str:
    """The table of differences: a row per metric, a column per comparison."""
    rows = [[_title(m), *(_signed(results["differences"][name].get(m)) for name in names)] for m in metrics]
    return table(["difference (95 % interval)", *map(compared.title, names)], rows)


def _null(results: Mapping) -> str:
    """The best null, and the phrase that `suffix` appends on each studio."""
    if not results["best_null"]:
        return ""
    studios = zip(results["seeds"], results["nulls"], strict=True)
    phrases = "; ".join(f"“{of['suffix']}” (studio {seed})" for seed, of in studios)
    return f"The best null is `{results['best_null']}`. `suffix` appends {phrases}."


def _targets(results: Mapping) -> list[list[str]]:
    required = {"lower": "lower bound above", "value": "at least"}
    return [
        [
            row["quantity"],
            f"{required[row['bound']]} {row['target']:+.3f}",
            _signed(row),
            "not measured" if row["value"] is None else "met" if row["met"] else "missed",
        ]
        for row in results["targets"]
    ]


def _win_rates(results: Mapping) -> list[list[str]]:
    judges = {"judge": "by the judge", "people": "by simulated people"}
    return [
        [
            f"{SYSTEM_TITLES[name.split('_vs_')[0]]} over {name.split('_vs_')[1]}, {judges[who]}",
            _with_interval(rate),
            *(str(rate[key]) for key in ("wins", "ties", "losses")),
        ]
        for name, rates in results["win_rate"].items()
        for who, rate in rates.items()
    ]


def _protocols(results: Mapping) -> str:
    """The table of protocols; agreement with people on the results, and by criterion on groups of images."""
    rows = results["judge_table"]
    criteria = list(rows[0].get("people", ()))
    head = ["protocol", "order consistency", "decided", "win rate", "agreement with people"]
    shown = [
        [
            f"`{row['protocol']}`",
            "both orders must agree" if row["order_consistency"] else "one order, at random",
            *(_with_interval(row[key]) for key in ("decided", "win_rate", "agreement")),
            *(_with_interval(row["people"][criterion]) for criterion in criteria),
        ]
        for row in rows
    ]
    return table([*head, *(f"agreement on {criterion}" for criterion in criteria)], shown)


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
