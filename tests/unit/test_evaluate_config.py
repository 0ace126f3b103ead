"""Which options of an evaluation a suite refuses."""

import pytest

from cluster.errors import UserError
from jobs.evaluate import job as evaluate
from jobs.evaluate.config import EvaluateConfig
from lab.suite import job as suite


def test_a_suite_refuses_what_it_settles_itself(monkeypatch):
    monkeypatch.setattr(suite, "suite", lambda config: pytest.fail("it started"))
    for changes, option in (({"teacher": False}, "--teacher"), ({"win_rate": False}, "--win-rate")):
        with pytest.raises(UserError, match=f"settles {option} itself"):
            evaluate.run(EvaluateConfig(suite="full", **changes))
    with pytest.raises(UserError, match="settles --queries, --pairs itself"):
        evaluate.run(EvaluateConfig(suite="objectives", pairs=("pairs.csv",), queries="own.txt"))


def test_a_suite_takes_the_sizes_that_it_is_given(monkeypatch):
    monkeypatch.setattr(suite, "suite", lambda config: {"num_queries": config.num_queries})
    config = EvaluateConfig(suite="full", num_queries=6, num_teacher_captions=2, min_accuracy=3.5)
    assert evaluate.run(config) == {"num_queries": 6}
