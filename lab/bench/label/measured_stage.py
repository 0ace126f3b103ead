"""One stage of the label pipeline to measure, and the requests it sends to its engine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from actors.engine import Request
from cluster.profile import LanguageModel


@dataclass(frozen=True)
class MeasuredStage:
    """A stage, its input, and the requests that the input causes.

    make_rows(seed, num_requests): input that causes this many requests or a few more. requests_of(rows): the
    requests that the stage sends to its engine for those rows. rows_per_call: 0 for the profile's batch size.
    folder: files of the measurement, which are removed afterwards; "" for none.
    """

    model: LanguageModel
    actor: type
    arguments: Mapping[str, Any]
    make_rows: Callable[[int, int], pa.Table]
    requests_of: Callable[[pa.Table], list[Request]]
    rows_per_call: int = 0
    batch_format: str = "numpy"
    folder: str = ""

    @property
    def batch_size(self) -> int:
        """Rows of one call."""
        return self.rows_per_call or self.model.stage.batch_size
