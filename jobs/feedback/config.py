"""Options of `kallos feedback`."""

from pydantic import Field

from cluster import command


class FeedbackConfig(command.JobConfig):
    """Summarise what people chose, and export their votes."""

    export: str | None = Field(
        default=None, description="Parquet file for the votes of blind comparisons; default: no export"
    )
