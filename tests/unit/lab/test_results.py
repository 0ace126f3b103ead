"""README.md and docs show what the evaluation suite measured."""

import json

import pytest

from cluster.errors import UserError
from cluster.profile import ROOT
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
    measured["metrics"]["aligned"]["aesthetic@5"]["value"] += 0.01
    assert results.PAGES[name](measured) != before


def test_readme_table_is_short(measured):
    assert 4 <= len(results.readme(measured).splitlines()) - 2 <= 6


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
