"""Options of `kallos evaluate`, and the names and sizes that its figures share."""

from typing import Literal

from pydantic import Field

from cluster.command import JobConfig, Options

# In the order of every table.
SYSTEMS = ("baseline", "suffix", "axis", "rephrase", "teacher", "aligned", "text")
CHALLENGERS = ("aligned", "text")  # compared with the baseline
Match = tuple[str, str]  # (challenger, opponent): whose results the judge compares
MATCHES: tuple[Match, ...] = (("aligned", "baseline"), ("text", "baseline"), ("aligned", "suffix"))
TOP_K = 5  # results of a query that are judged and shown: the 5 of precision@5 and aesthetic@5
DIVERSITY_K = 10  # results of a query whose diversity is measured: the 10 of vendi@10
RECALLS = (1, 5, 10)
PROTOCOLS = ("ranker", "scorer", "cp_scorer")  # those that the shipped judge is trained on


class PageOptions(Options):
    """How the page is drawn; no figure depends on these."""

    num_sheets: int = Field(
        default=12, ge=0, description="number of queries shown with their results, drawn by seed"
    )
    num_losses: int = Field(default=6, ge=0, description="number of queries shown because they lost the most")
    thumb_px: int = Field(default=160, ge=32, le=256, description="height of the images in the page, pixels")


class MeasureOptions(Options):
    """How much is measured, and by which judge."""

    num_queries: int = Field(
        default=60, ge=1, description="number of queries to evaluate, drawn by seed from those given"
    )
    num_caption_queries: int = Field(
        default=1000, ge=0, description="number of captions whose recall is measured, drawn by seed; 0 = all"
    )
    num_teacher_captions: int = Field(
        default=24,
        ge=0,
        description="number of the sampled captions that the teacher searches as well",
    )
    teacher_top_k: int = Field(
        default=50, ge=TOP_K, description="number of candidate images that the teacher retrieves for a query"
    )
    min_accuracy: float | None = Field(
        default=None,
        ge=1,
        le=5,
        description="rated accuracy, 1 to 5, below which the teacher drops an image; "
        "default: the profile's label.min_accuracy",
    )
    judge: str | None = Field(
        default=None,
        description="model that compares and rates the results, a Hugging Face folder or hub name; the "
        "teacher keeps the profile's judge; default: the profile's judge",
    )
    num_resamples: int = Field(
        default=2000, ge=100, description="number of bootstrap resamples of the queries"
    )


class EvaluateConfig(PageOptions, MeasureOptions, JobConfig):
    """Compare an aligned encoder with the baseline, the nulls and the teacher on one gallery."""

    baseline: str = Field(
        default="baseline", description="encoder before alignment: an alias or a fingerprint"
    )
    aligned: str = Field(
        default="candidate", description="encoder after alignment: an alias or a fingerprint"
    )
    text: str | None = Field(
        default=None,
        description="second aligned encoder, of mode `text`: an alias or a fingerprint; default: none",
    )
    queries: str | None = Field(
        default=None,
        description="table (.parquet, .csv, .jsonl) with a `query` column, or .txt with one query a line; "
        "default: drawn from the gallery's captions",
    )
    truth: str | None = Field(
        default=None,
        description="table of known accuracy and beauty: query, image_id, accurate, aesthetics (0 to 1); a "
        "pair that it lacks counts as inaccurate; default: none",
    )
    labels: str | None = Field(
        default=None,
        description="table of what the images show, for zero-shot classification: image_id, label; "
        "default: none",
    )
    hpir: tuple[str, ...] = Field(
        default=(), description="HPIR-form tables; the first gives hpir_accuracy and hpir_aesthetic"
    )
    pairs: tuple[str, ...] = Field(
        default=(), description="pair tables: query, file_a, file_b, n_prefer_a, n_prefer_b (optional: n_tie)"
    )
    num_votes: int = Field(
        default=0, ge=0, description="number of rows used of each HPIR or pair table, drawn by seed; 0 = all"
    )
    where: str | None = Field(
        default=None,
        description="SQL filter on the embeddings tables that selects the gallery; default: all images",
    )
    teacher: bool = Field(
        default=True, description="measure the teacher: rephrase, retrieve, judge, re-order"
    )
    win_rate: bool = Field(default=True, description="let the judge compare the top-5 results of each query")
    protocols: tuple[Literal["ranker", "scorer", "cp_scorer", "sheet"], ...] = Field(
        default=("ranker",),
        description="how the judge compares two lists of results: which image is better, images rated alone, "
        "or rated while both are shown, or which row is better, both in one `sheet` (for a large judge: the "
        "shipped one is not trained on it); `ranker` gives the win rate",
    )
    seed: int = Field(default=0, ge=0, description="seed of every draw and of the bootstrap")
    out: str = Field(default="runs/evaluate", description="folder for report.json and report.html")
