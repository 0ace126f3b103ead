"""Options of `kallos label`."""

from typing import Literal

from pydantic import Field

from cluster import command


class LabelConfig(command.JobConfig):
    """Turn queries into preferences."""

    queries: str | None = Field(
        default=None,
        description="file of queries: .parquet, .csv or .jsonl with a column `query`, or .txt with one query "
        "per line; default: drawn from the captions",
    )
    num_queries: int | None = Field(
        default=None,
        ge=1,
        description="number of queries to label; default: all of the file, or 64 drawn from the captions",
    )
    style: Literal["original", "repeat", "detail", "k_list", "kw_dict", "reorg"] | None = Field(
        default=None, description="the way the rephraser writes; default: the profile's label.style"
    )
    source: Literal["scorer", "lmm_score", "lmm_pair"] | None = Field(
        default=None,
        description="what orders images by beauty: a scorer, or the judge's ratings or comparisons; "
        "default: the profile's label.source",
    )
    semantic: Literal["encoder", "judge"] | None = Field(
        default=None,
        description="what rates accuracy: the reference encoder, or the judge; default: the encoder with "
        "source `scorer`, otherwise the profile's label.semantic",
    )
    scorer: Literal["prompts", "axis", "head"] = Field(
        default="prompts",
        description="with source `scorer`: prompt pairs, rank axis or linear head (actors/scorers.py)",
    )
    ratings: str | None = Field(
        default=None,
        description="table (.parquet, .csv, .jsonl) with `image_id` and `rating`, to fit axis or head; "
        "default: none",
    )
    votes: str | None = Field(
        default=None,
        description="pair table of people's votes (query, file_a, file_b, n_prefer_a, n_prefer_b, optional: "
        "n_tie), on which p_winner is calibrated; default: people's direct choices in the store, or else the "
        "judge's order consistency",
    )
    explain: str | None = Field(
        default=None,
        description="query whose labelling is drawn on a page: its rephrasing, images, grid and pairs; "
        "nothing is labelled then; default: label",
    )
    out: str | None = Field(
        default=None,
        description="HTML file that --explain writes; default: runs/label/explain/<query>.html",
    )
    encoder: str = Field(default="baseline", description="alias or fingerprint of the reference encoder")
    where: str | None = Field(
        default=None,
        description="SQL filter on the embeddings table, such as source = 'photos'; default: all images",
    )
    top_k: int | None = Field(
        default=None,
        ge=2,
        description="K: number of images retrieved for a query; default: the profile's label.top_k",
    )
    rows: int | None = Field(
        default=None,
        ge=1,
        description="u: number of rows of the partial order; default: the profile's label.rows",
    )
    columns: int | None = Field(
        default=None,
        ge=1,
        description="v: number of images in a row of the partial order; default: the profile's label.columns",
    )
    stride: int | None = Field(
        default=None,
        ge=1,
        description="every stride-th image by accuracy enters the partial order; "
        "default: the profile's label.stride",
    )
    queries_per_call: int = Field(
        default=8, ge=1, description="number of queries that are re-ranked and written together"
    )
    seed: int = Field(default=0, ge=0, description="seed of the queries that are drawn")
