"""The warm-up of the label benchmark: one call of the stage, however many requests a row asks."""

import pyarrow as pa
import pytest

from cluster.profile import LanguageModel, Stage
from lab.bench.label.job import warm_up_rows
from lab.bench.label.side import Side


def side(requests_per_row: int, rows_per_call: int, most_rows: int = 1000) -> Side:
    def rows(seed: int, num_requests: int) -> pa.Table:
        num_rows = min(most_rows, -(-num_requests // requests_per_row))
        return pa.table({"query": [f"{seed} {number}" for number in range(num_rows)]})

    def requests(table: pa.Table) -> list:
        return [None] * (table.num_rows * requests_per_row)

    model = LanguageModel(model="none", max_tokens=1, stage=Stage(batch_size=256))
    return Side(model, object, {}, rows, requests, rows_per_call)


@pytest.mark.parametrize(("requests_per_row", "rows_per_call"), [(100, 4), (1, 0), (3, 5)])
def test_the_warm_up_is_exactly_one_call(requests_per_row, rows_per_call):
    measured = side(requests_per_row, rows_per_call)
    assert warm_up_rows(measured, seed=1).num_rows == measured.batch_size


def test_a_warm_up_of_too_few_rows_is_noticed():
    with pytest.raises(AssertionError, match="3 rows, a call takes 4"):
        warm_up_rows(side(100, 4, most_rows=3), seed=1)
