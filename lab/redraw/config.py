"""Options of `kallos redraw`."""

from pydantic import Field

from jobs.evaluate.config import PageOptions


class RedrawConfig(PageOptions):
    """Draw report.html again, without any model."""

    folder: str = Field("runs/evaluate", description="folder that `kallos evaluate` or `kallos suite` wrote")
