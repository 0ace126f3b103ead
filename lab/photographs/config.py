"""Options of `kallos photographs`."""

from pydantic import Field

from cluster.command import JobConfig


class PhotographsConfig(JobConfig):
    """Measure how well people's votes on photographs can be predicted."""

    folder: str = Field(description="folder of rated photographs, with metadata.csv and pairs.csv")
    num_seeds: int = Field(
        default=3, ge=1, description="training runs of each DPO method, of seed, seed + 1, ..."
    )
    num_resamples: int = Field(
        default=2000, ge=100, description="number of bootstrap resamples of the photographs"
    )
    seed: int = Field(default=0, ge=0, description="seed of the training runs and of the bootstrap")
    out: str = Field(default="runs/photographs", description="folder for report.json and report.html")
