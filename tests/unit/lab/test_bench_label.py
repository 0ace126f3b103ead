"""The warm-up of the label benchmark is one call of the stage, however many requests a row causes."""

import pyarrow as pa
import pytest

from cluster.profile import LanguageModel, Stage
from lab.bench.label.job import warm_up_rows
from lab.bench.label.measured_stage import MeasuredStage


def make_stage(requests_per_row: int, rows_per_call: int, max_rows: int = 1000) -> MeasuredStage:
    def make_rows(seed: int, num_requests: int) -> pa.Table:
        num_rows = min(max_rows, -(-num_requests // requests_per_row))
        return pa.table({"query": [f"{seed} {index}" for index in range(num_rows)]})

    def requests_of(rows: pa.Table) -> list:
        return [None] * (rows.num_rows * requests_per_row)

    model = LanguageModel(model="none", max_tokens=1, stage=Stage(batch_size=256))
    return MeasuredStage(model, object, {}, make_rows, requests_of, rows_per_call)


@pytest.mark.parametrize(("requests_per_row", "rows_per_call"), [(100, 4), (1, 0), (3, 5)])
def test_warm_up_is_exactly_one_call(requests_per_row, rows_per_call):
    measured = make_stage(requests_per_row, rows_per_call)
    assert warm_up_rows(measured, seed=1).num_rows == measured.batch_size


def test_warm_up_with_too_few_rows_fails():
    with pytest.raises(AssertionError, match="3 rows, a call takes 4"):
        warm_up_rows(make_stage(100, 4, max_rows=3), seed=1)
