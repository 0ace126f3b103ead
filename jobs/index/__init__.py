"""Give an encoder its index: embed images, build an ANN index where one pays, choose how hard to search it.

    kallos index --encoder candidate
    kallos index --optimize             # take what was ingested since into the index, join small files

`images` -> `embeddings_<encoder>`, and a row in `indexes` for each measurement that tells something new: the
fastest settings whose recall@10 reaches the profile's `index.recall`. An encoder whose image side equals its
parent's (aligned in `text` mode) takes over the parent's vectors.
"""

from pydantic import Field

from jobs import command


class IndexConfig(command.JobConfig):
    """Whose index, over which images."""

    encoder: str = Field("live", description="alias or fingerprint of a registered encoder")
    where: str = Field("", description="SQL filter on the images table, empty = every image")
    optimize: bool = Field(False, description="embed nothing: index new rows, join small files, measure")


def run(config: IndexConfig) -> dict:
    """Embed, index, measure; returns the report. Raises UserError for an unknown encoder or a bad filter."""
    from jobs.index.job import index  # here, so that `--help` does not wait for torch

    return index(config)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    command.main(IndexConfig, run, argv)
