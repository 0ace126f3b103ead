"""Options of `kallos feedback`."""

from pydantic import Field

from cluster import command


class FeedbackConfig(command.JobConfig):
    """Where the votes go."""

    export: str = Field(
        "", description="Parquet file to write the votes of blind comparisons to, empty = report alone"
    )
