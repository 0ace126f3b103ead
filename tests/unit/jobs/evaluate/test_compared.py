"""Which systems a report compares."""

from jobs.evaluate.figures.compared import best_null, comparisons


def test_best_null_is_the_null_with_the_higher_score_whatever_other_systems_reach():
    assert best_null({"suffix": 0.4, "axis": 0.5, "aligned": 0.9}) == "axis"
    assert best_null({"suffix": 0.4, "axis": None}) == "suffix"
    assert best_null({"baseline": 0.4, "rephrase": 0.9}) is None


def test_every_measured_challenger_is_compared_with_the_baseline_and_the_best_null():
    assert comparisons(["baseline", "suffix", "axis", "rephrase", "teacher", "aligned"], "axis") == {
        "teacher_minus_baseline": ("teacher", "baseline"),
        "teacher_minus_best_null": ("teacher", "axis"),
        "aligned_minus_baseline": ("aligned", "baseline"),
        "aligned_minus_best_null": ("aligned", "axis"),
    }
    assert list(comparisons(["baseline", "text"], None)) == ["text_minus_baseline"]
