"""README.md says what the evaluation suite measured."""

import json

import pytest

from cluster.errors import UserError
from lab.suite import readme


def test_the_readme_shows_the_results_that_were_measured():
    results = json.loads(readme.RESULTS.read_text(encoding="utf-8"))
    shown = readme.README.read_text(encoding="utf-8")
    assert readme.insert(shown, readme.table(results)) == shown, (
        "README.md and docs/results.json disagree: python -m lab.suite.readme runs/evaluate/report.json"
    )


def test_a_changed_figure_changes_the_table():
    results = json.loads(readme.RESULTS.read_text(encoding="utf-8"))
    before = readme.table(results)
    results["metrics"]["aligned"]["aesthetic@5"]["value"] += 0.01
    assert readme.table(results) != before


def test_a_readme_without_marks_is_refused():
    with pytest.raises(UserError, match="lacks the marks"):
        readme.insert("# nothing here", "table")
