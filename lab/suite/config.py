"""Options of `kallos suite`."""

from typing import Literal

from pydantic import Field

from cluster.command import ProfileConfig
from jobs.evaluate.config import MeasureOptions, PageOptions
from lab.studio.config import NUM_HELDOUT_QUERIES, NUM_TRAIN_QUERIES


class SuiteConfig(PageOptions, MeasureOptions, ProfileConfig):
    """Evaluate alignment on several studios, from the profile's checkpoints alone."""

    kind: Literal["full", "objectives"] = Field(
        default="full",
        description="full = with ablations on the first studio; objectives = compare the preference losses "
        "instead, on every studio",
    )
    num_seeds: int = Field(default=3, ge=1, description="number of studios, drawn from seed, seed + 1, ...")
    seed: int = Field(default=0, ge=0, description="seed of the first studio, and of the bootstrap")
    num_images: int = Field(default=4000, ge=1000, description="number of images of a studio")
    num_train_queries: int = Field(
        default=160,
        ge=8,
        le=NUM_TRAIN_QUERIES,
        description="number of queries of a studio that are labelled",
    )
    targets: str | None = Field(
        default=None,
        description="YAML file of the figures to reach: quantity, figure, at_least (relative_to); "
        "default: lab/suite/targets.yaml",
    )
    num_queries: int = Field(
        default=60,
        ge=1,
        le=NUM_HELDOUT_QUERIES,
        description="number of held-out queries of a studio to evaluate, drawn by seed",
    )
    out: str = Field(
        default="runs/suite", description="folder for report.json and report.html, and seed<N> for each"
    )
