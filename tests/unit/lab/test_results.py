"""README.md and docs show what the evaluation suite measured."""

import json

import pytest

from cluster.errors import UserError
from cluster.profile import ROOT
from jobs.evaluate.config import SYSTEMS
from jobs.evaluate.figures import compared
from lab.suite import results


@pytest.fixture
def measured():
    return json.loads(results.RESULTS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", results.PAGES)
def test_page_shows_the_measured_results(measured, name):
    shown = (ROOT / name).read_text(encoding="utf-8")
    assert results.insert(shown, results.PAGES[name](measured), name) == shown, (
        f"{name} and docs/results.json disagree: run `python -m lab.suite.results`"
    )


@pytest.mark.parametrize("name", ["README.md", "docs/results.md"])
def test_changed_figure_changes_the_page(measured, name):
    before = results.PAGES[name](measured)
    measured["systems"]["aligned"]["aesthetic@5"]["value"] += 0.01
    assert results.PAGES[name](measured) != before


def test_readme_has_a_row_per_metric_and_systems_and_differences_as_columns(measured):
    figure = {"value": 0.25, "ci95": [0.2, 0.3]}
    systems = {name: dict.fromkeys(results.METRICS, figure) for name in SYSTEMS}
    differences = {
        name: dict.fromkeys(results.METRICS, figure) for name in compared.comparisons(SYSTEMS, "axis")
    }
    report = {"systems": systems, "differences": differences, "best_null": "axis"}
    report |= {"seeds": [7], "nulls": [{"suffix": ", lovely"}]}
    lines = results.readme(report).splitlines()
    head = "|  | baseline | suffix | axis | rephrase | teacher | aligned | aligned (text) |"
    assert lines[0] == head and lines[2] == f"| aesthetic@5 |{' 0.250 |' * 7}"
    titles = "aligned − baseline | aligned − best null | teacher − best null | aligned (text) − best null"
    second = lines.index(f"| difference (95 % interval) | {titles} |")
    assert lines[second + 2] == f"| aesthetic@5 |{' +0.250 (+0.200 to +0.300) |' * 4}"
    assert (
        lines[-1] == "The best null is `axis`. `suffix` appends “, lovely” (studio 7)." and len(lines) <= 18
    )


def test_target_shows_its_bound_and_whether_it_was_measured(measured):
    row = {"quantity": "q", "target": 0.05, "value": 0.1, "ci95": [0.04, 0.2], "met": False}
    rows = [row | {"bound": "lower"}, row | {"bound": "value", "met": True},
            row | {"bound": "lower", "value": None, "ci95": None}]  # fmt: skip
    page = results.results_page(measured | {"targets": rows})
    assert "| q | lower bound above +0.050 | +0.100 (+0.040 to +0.200) | missed |" in page
    assert "| q | at least +0.050 | +0.100 (+0.040 to +0.200) | met |" in page
    assert "| q | lower bound above +0.050 | – | not measured |" in page


def test_page_without_marks_is_refused():
    with pytest.raises(UserError, match=r"README.md lacks the marks"):
        results.insert("# nothing here", "table", "README.md")


def test_report_is_copied_and_written_into_every_page(measured, tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    for name in results.PAGES:
        (tmp_path / name).write_text(f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n")
    (tmp_path / "report.json").write_text(json.dumps(measured | {"judged": []}))
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "RESULTS", tmp_path / "docs" / "results.json")
    results.main([str(tmp_path / "report.json")])
    assert json.loads((tmp_path / "docs" / "results.json").read_text()) == measured
    for name, text_of in results.PAGES.items():
        expected = f"before\n{results.BEGIN}\n{text_of(measured)}\n{results.END}\nafter\n"
        assert (tmp_path / name).read_text() == expected
