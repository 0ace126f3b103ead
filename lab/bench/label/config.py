"""Options of `kallos bench label`."""

from typing import Literal

from pydantic import Field

from lab.bench.config import BenchConfig


class BenchLabelConfig(BenchConfig):
    """Compare the stages of the rephraser and the judge with bare vLLM."""

    num_requests: int = Field(
        default=1024, ge=1, description="number of requests in a turn, without the warm-up batch"
    )
    models: tuple[Literal["llm", "lmm"], ...] = Field(
        default=("llm", "lmm"),
        min_length=1,
        description="stages to measure: that of the rephraser, that of the judge",
    )
    style: Literal["original", "repeat", "detail", "k_list", "kw_dict", "reorg"] | None = Field(
        default=None, description="the way the rephraser writes; default: the profile's label.style"
    )
    seed: int = Field(default=0, ge=0, description="seed of the queries")
