"""What `kallos bench label` measures: one stage of the label pipeline, and the requests that it comes down
to.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from actors.engine import Request
from cluster.profile import LanguageModel


@dataclass(frozen=True)
class Side:
    """One stage to measure.

    rows(seed, num_requests): input of the stage that asks for so many requests, or a few more.
    requests(rows): what the stage asks its engine for those rows. rows_per_call: 0 takes the stage's batch
    size. folder: files of the measurement, removed afterwards; "" for none.
    """

    model: LanguageModel
    actor: type
    arguments: Mapping[str, Any]
    rows: Callable[[int, int], pa.Table]
    requests: Callable[[pa.Table], list[Request]]
    rows_per_call: int = 0
    batch_format: str = "numpy"
    folder: str = ""

    @property
    def batch_size(self) -> int:
        """Rows of one call."""
        return self.rows_per_call or self.model.stage.batch_size
