"""Options of `kallos studio`."""

from pydantic import Field

from cluster.command import JobConfig

NUM_TRAIN_QUERIES, NUM_HELDOUT_QUERIES = 300, 100


class StudioConfig(JobConfig):
    """Write a seeded studio of drawn, photograph-like images."""

    out: str = Field(
        default="runs/studio", description="folder to write; an existing one must come from the same config"
    )
    seed: int = Field(default=0, ge=0, description="seed of everything in the folder")
    num_images: int = Field(
        default=4000,
        ge=100,
        description="number of images of all splits (40 % train, 40 % gallery, 20 % heldout)",
    )
    size_px: int = Field(default=160, ge=64, le=1024, description="width and height of an image, pixels")
    num_train_queries: int = Field(
        default=NUM_TRAIN_QUERIES, gt=0, le=1000, description="number of queries to label preferences with"
    )
    num_heldout_queries: int = Field(
        default=NUM_HELDOUT_QUERIES,
        gt=0,
        le=1000,
        description="number of queries held out for evaluation; each needs five images of the gallery",
    )
    num_hpir: int = Field(
        default=150,
        ge=0,
        description="number of rows in HPIR form: a query, two groups of images and their votes",
    )
    num_raters: int = Field(default=7, gt=0, description="number of simulated people who vote")
