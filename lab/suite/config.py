"""Options of `kallos suite`."""

from typing import Literal

from pydantic import Field, model_validator

from cluster.command import ProfileConfig
from jobs.evaluate.config import MeasureOptions, PageOptions
from lab.studio.config import NUM_HELDOUT_QUERIES, NUM_TRAIN_QUERIES

QUICK = {"num_seeds": 1, "num_train_queries": 120, "num_queries": 60}  # the most that `--quick` measures


class SuiteConfig(PageOptions, MeasureOptions, ProfileConfig):
    """Evaluate alignment on several studios, from the profile's checkpoints alone."""

    kind: Literal["full", "objectives"] = Field(
        default="full",
        description="full = with ablations on the first studio; objectives = compare the preference losses "
        "instead, on every studio",
    )
    quick: bool = Field(
        default=False,
        description=f"measure the first studio alone, with at most {QUICK['num_train_queries']} labelled and "
        f"{QUICK['num_queries']} held-out queries, and without ablations",
    )
    num_seeds: int = Field(default=5, ge=1, description="number of studios, drawn from seed, seed + 1, ...")
    seed: int = Field(
        default=0,
        ge=0,
        description="seed of the first studio, and of the bootstrap; 0 to 4 are the studios of the reported "
        "figures, 100 to 104 those on which settings are chosen",
    )
    num_images: int = Field(default=4000, ge=1000, description="number of images of a studio")
    num_train_queries: int = Field(
        default=160,
        ge=8,
        le=NUM_TRAIN_QUERIES,
        description="number of queries of a studio that are labelled",
    )
    targets: str | None = Field(
        default=None,
        description="YAML file of the figures to reach: quantity, figure, at_least (bound); "
        "default: lab/suite/targets.yaml",
    )
    num_queries: int = Field(
        default=NUM_HELDOUT_QUERIES,
        ge=1,
        le=NUM_HELDOUT_QUERIES,
        description="number of held-out queries of a studio to evaluate, drawn by seed",
    )
    out: str = Field(
        default="runs/suite", description="folder for report.json and report.html, and seed<N> for each"
    )

    @model_validator(mode="after")
    def _quick_compares_nothing(self) -> "SuiteConfig":
        if self.quick and self.kind == "objectives":
            raise ValueError("quick has no comparisons: omit it, or kind objectives")
        return self

    def limited(self) -> "SuiteConfig":
        """The config with the sizes that `quick` allows."""
        most = QUICK if self.quick else {}
        return self.model_copy(update={name: min(getattr(self, name), value) for name, value in most.items()})
