"""Tells what people said on the search page, and exports their blind comparisons as votes.

    kallos feedback
    kallos feedback --export runs/votes.parquet && kallos evaluate --hpir runs/votes.parquet

Reads `feedback` and `preferences`. The export is in HPIR form: a row for a query and two groups of images,
however the sides were shuffled, with the votes for either and for neither (votes_accuracy_tie,
votes_aesthetic_tie). Of a person who compares the same two answers again, the last word counts.
"""

from pydantic import Field

from jobs import command


class FeedbackConfig(command.JobConfig):
    """Where the votes go."""

    export: str = Field(
        "", description="Parquet file to write the votes of blind comparisons to, empty = report alone"
    )


def run(config: FeedbackConfig) -> dict:
    """Count, and export where asked; returns the report. Raises UserError where there is nothing to tell."""
    from jobs.feedback.votes import tell  # here, so that `--help` does not wait for Arrow

    return tell(config)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    command.main(FeedbackConfig, run, argv)
