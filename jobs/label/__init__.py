"""Queries -> preferences: rephrase, retrieve, rerank, partial order, as one streaming Ray Data pipeline.

Reads `embeddings_<encoder>` and `images`; writes `preferences` (ordered pairs) and `rankings` (one row a
query, written after its preferences, so that it marks the query as done).

    kallos label --num-queries 64
    kallos label --queries queries.parquet --source lmm_pair

Queries come from a file or are drawn from the captions. A run is named by what determines its labels
(`run_id`), so the same command adds nothing, one that was killed continues, and more queries extend the
run.
"""

from typing import Literal

from pydantic import Field

from jobs import command


class LabelConfig(command.JobConfig):
    """Which queries, and how their images are ordered. "auto", 0 and empty take the profile's value."""

    queries: str = Field(
        "",
        description="file of queries: .parquet, .csv or .jsonl with a column `query`, or .txt with one a "
        "line; empty = drawn from the captions",
    )
    num_queries: int = Field(
        0, ge=0, description="queries to label, a count; 0 = all of the file, or 64 drawn from captions"
    )
    style: Literal["auto", "original", "repeat", "detail", "k_list", "kw_dict", "reorg"] = Field(
        "auto", description="how the language model rephrases a query"
    )
    source: Literal["auto", "scorer", "lmm_score", "lmm_pair"] = Field(
        "auto", description="what orders images by beauty"
    )
    semantic: Literal["auto", "encoder", "judge"] = Field(
        "auto",
        description="what orders images by accuracy: the retrieval's own score, or the judge, asked for each "
        "of the top_k images; source scorer takes the retrieval's unless told otherwise",
    )
    scorer: Literal["prompts", "axis", "head"] = Field(
        "prompts", description="with source scorer: pairs of prompts, a rank axis, or a linear head"
    )
    ratings: str = Field(
        "",
        description="table (.parquet, .csv, .jsonl) of `image_id`, `rating` that axis and head are fitted on",
    )
    encoder: str = Field("baseline", description="alias or fingerprint of the reference encoder")
    where: str = Field("", description="SQL filter on the embeddings table, such as source = 'photos'")
    top_k: int = Field(0, ge=0, description="K: images retrieved for a query, a count")
    rows: int = Field(0, ge=0, description="u: rows of the partial order, a count")
    columns: int = Field(0, ge=0, description="v: images in a row of the partial order, a count")
    stride: int = Field(0, ge=0, description="every stride-th image of the semantic order is taken")
    queries_per_call: int = Field(
        8, ge=1, description="queries that one call reranks and the tables receive together, a count"
    )
    seed: int = Field(0, ge=0, description="fixes which queries are drawn")


def run(config: LabelConfig) -> dict:
    """Label; returns the report. Raises UserError before any work when something is wrong."""
    from jobs.label.job import label  # here, so that `--help` waits for neither Ray nor LanceDB

    return label(config)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    command.main(LabelConfig, run, argv)
