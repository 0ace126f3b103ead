"""README's table of results, written from a suite's report and never by hand.

    python -m lab.suite.readme runs/evaluate/report.json

Copies the figures to docs/results.json and puts the table between README.md's two marks. A test makes the
table from docs/results.json again and compares.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from cluster.errors import UserError
from cluster.profile import ROOT
from jobs.evaluate.config import SYSTEMS, TOP_K
from jobs.evaluate.page.render import LABELS

RESULTS = ROOT / "docs" / "results.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- results: written by lab/suite/readme.py -->", "<!-- end of results -->"
METRICS = {
    "recall@1": "caption recall@1",
    "recall@10": "caption recall@10",
    f"precision@{TOP_K}": f"precision@{TOP_K}",
    f"aesthetic@{TOP_K}": f"`aesthetic@{TOP_K}` (an inaccurate image counts 0)",
    "hpir_accuracy": "agreement with people on accuracy (HPIR form)",
    "hpir_aesthetic": "agreement with people on aesthetics (HPIR form)",
    "zero_shot": "zero-shot classification",
    "vendi@10": "Vendi score of the top ten",
}
# What docs/results.json keeps of a report: the figures, without the tables that the page alone shows.
KEPT = ("suite", "seeds", "num_images", "num_queries", "num_preferences", "metrics", "difference", "gain")
KEPT += ("win_rate", "judge_table", "styles", "ablations", "objectives", "targets", "machine")
KEPT += ("wise_ft_alpha", "sweep", "training", "seconds", "created_at")


def table(results: Mapping) -> str:
    """The Markdown between the marks."""
    return "\n".join([_provenance(results), "", *_metrics(results), "", *_targets(results)])


def _provenance(results: Mapping) -> str:
    machine, seeds = results["machine"], results["seeds"]
    return (
        f"`kallos evaluate --suite full`, {results['created_at'][:10]}, on {machine['num_cores']} cores of "
        f"{machine['processor']}, {machine['memory_bytes'] / 2**30:.0f} GiB, no GPU: mean of studios "
        f"{', '.join(map(str, seeds))}, each with {results['num_images']:,} gallery images and "
        f"{results['num_queries']} queries that training never saw. In brackets the 95 % interval over "
        f"queries of the difference from before."
    )


def _metrics(results: Mapping) -> list[str]:
    rows = ["| | " + " | ".join(LABELS[s] for s in SYSTEMS) + " |", "| --- |" + " --- |" * len(SYSTEMS)]
    for name, title in METRICS.items():
        cells = [_cell(results, system, name) for system in SYSTEMS]
        rows.append(f"| {title} | " + " | ".join(cells) + " |")
    return rows


def _cell(results: Mapping, system: str, name: str) -> str:
    found = results["metrics"][system].get(name)
    if not found or found["value"] is None:
        return "–"
    change = results["difference"].get(system, {}).get(name)
    if not change or change.get("value") is None:
        return f"{found['value']:.3f}"
    low, high = change["ci95"]
    return f"{found['value']:.3f} ({low:+.3f} to {high:+.3f})"


def _targets(results: Mapping) -> list[str]:
    rows = ["| quantity | wanted | reached |", "| --- | --- | --- |"]
    for row in results["targets"]:
        interval = f" ({row['ci95'][0]:+.3f} to {row['ci95'][1]:+.3f})" if row["ci95"] else ""
        missed = "" if row["met"] else ", missed"
        rows.append(
            f"| {row['quantity']} | at least {row['target']:+.2f} | {row['value']:+.3f}{interval}{missed} |"
        )
    return rows


def insert(readme: str, text: str) -> str:
    """The README with the text between its marks. Raises UserError where a mark is missing."""
    if BEGIN not in readme or END not in readme:
        raise UserError(f"README.md lacks the marks {BEGIN!r} and {END!r}")
    before, rest = readme.split(BEGIN, 1)
    return f"{before}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}"


def main(argv: list[str]) -> None:
    """Copy the report's figures and write the table."""
    if len(argv) != 1:
        sys.exit("usage: python -m lab.suite.readme runs/evaluate/report.json")
    report = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    results = {name: report[name] for name in KEPT}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    README.write_text(insert(README.read_text(encoding="utf-8"), table(results)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
