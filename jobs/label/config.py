"""Options of `kallos label`."""

from typing import Literal

from pydantic import Field

from cluster import command


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
