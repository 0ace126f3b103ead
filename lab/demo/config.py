"""Options of `kallos demo`."""

from pydantic import Field

from cluster.command import JobConfig
from lab.studio.config import NUM_HELDOUT_QUERIES, NUM_TRAIN_QUERIES


class DemoConfig(JobConfig):
    """Run the whole loop on a small studio, then serve its page."""

    out: str = Field(
        default="runs/demo", description="folder of the demo; an existing one must have the same sizes"
    )
    seed: int = Field(default=0, ge=0, description="seed of the studio, the training order and the samples")
    num_images: int = Field(default=4000, ge=1000, description="number of studio images")
    num_queries: int = Field(
        default=160, ge=8, le=NUM_TRAIN_QUERIES, description="number of training queries to label"
    )
    num_eval_queries: int = Field(
        default=60, ge=12, le=NUM_HELDOUT_QUERIES, description="number of held-out queries to evaluate on"
    )
    serve: bool = Field(default=True, description="serve the page at the end, until Ctrl-C")
    port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="port of the page, 0 takes any free one; default: the profile's serve.port",
    )
