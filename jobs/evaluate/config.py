"""Options of `kallos evaluate`, and what its figures share."""

from typing import Literal

from pydantic import Field

from cluster import command

SYSTEMS = ("baseline", "teacher", "aligned", "text")  # in the order of every table
CHALLENGERS = ("aligned", "text")  # what is compared with the baseline
TOP_K = 5  # results of one query that are judged and shown; it stands in the names precision@5, aesthetic@5
DIVERSITY_K = 10  # results of one query whose diversity is measured; it stands in the name vendi@10
RECALLS = (1, 5, 10)

# Options that only decide how a report is drawn.
DRAWING = ("out", "report", "num_sheets", "num_losses", "thumb_px")
# What a suite settles for each studio: given beside one they would be overruled, or miss in its report.
SETTLED_BY_SUITE = (
    "baseline",
    "aligned",
    "text",
    "queries",
    "truth",
    "hpir",
    "pairs",
    "where",
    "teacher",
    "win_rate",
    "protocols",
)


class EvaluateConfig(command.JobConfig):
    """Compare an aligned encoder, the teacher and the baseline on one gallery."""

    baseline: str = Field("baseline", description="encoder before alignment: an alias or a fingerprint")
    aligned: str = Field("candidate", description="encoder after alignment: an alias or a fingerprint")
    text: str = Field(
        "",
        description="encoder aligned in mode `text`, measured beside the aligned one: an alias or a "
        "fingerprint; empty = none",
    )
    queries: str = Field(
        "",
        description="table (.parquet, .csv, .jsonl) with a `query` column, or .txt with one query a line; "
        "empty = queries_heldout.parquet of the truth folder, else drawn from the gallery's captions",
    )
    num_queries: int = Field(60, ge=1, description="queries evaluated, drawn by seed from all given, a count")
    truth: str = Field("", description="studio folder that knows true accuracy and aesthetics; empty = none")
    hpir: tuple[str, ...] = Field(
        (), description="HPIR-form tables; the first gives hpir_accuracy and hpir_aesthetic"
    )
    pairs: tuple[str, ...] = Field(
        (), description="pair tables: query, file_a, file_b, n_prefer_a, n_prefer_b (n_tie)"
    )
    num_votes: int = Field(
        0, ge=0, description="rows of each HPIR or pair table used, drawn by seed, a count; 0 = all"
    )
    where: str = Field("", description="SQL filter on the embeddings tables: what counts as the gallery")
    num_caption_queries: int = Field(
        1000, ge=0, description="captions whose recall is measured, drawn by seed, a count; 0 = all"
    )
    teacher: bool = Field(True, description="measure the teacher: rephrase, retrieve, judge, re-order")
    win_rate: bool = Field(True, description="let the judge compare the two top-5 rows of each query")
    protocols: tuple[Literal["ranker", "scorer", "cp_scorer"], ...] = Field(
        ("ranker",),
        description="how the judge compares rows: which picture is better, pictures rated alone, or rated "
        "with both in sight; `ranker` gives the win rate",
    )
    num_teacher_captions: int = Field(
        24, ge=0, description="captions of the recall sample that the teacher answers too, a count"
    )
    teacher_top_k: int = Field(
        50, ge=TOP_K, description="K: candidates that the teacher retrieves for a query, a count"
    )
    min_accuracy: float = Field(
        0.0,
        ge=0,
        le=5,
        description="judged accuracy, 1 to 5, from which on the teacher keeps an image; "
        "0 = the profile's label.min_accuracy",
    )
    num_sheets: int = Field(12, ge=0, description="queries, drawn by seed, shown with their results, a count")
    num_losses: int = Field(6, ge=0, description="queries that lost the most, shown too, a count")
    thumb_px: int = Field(160, ge=32, le=256, description="height of the images in the page, pixels")
    num_resamples: int = Field(2000, ge=100, description="bootstrap resamples of the queries, a count")
    seed: int = Field(0, description="seed of every draw and of the bootstrap")
    suite: Literal["", "full", "objectives"] = Field(
        "",
        description="full = draw studios, label, align in both modes and measure everything, from the "
        "profile's checkpoints alone; objectives = compare the preference losses too, in the place of the "
        "ablations; either settles itself which encoders, queries, votes and systems are compared, and "
        "refuses to be told",
    )
    num_seeds: int = Field(
        3,
        ge=1,
        description="with a suite: studios drawn, of seed, ..., a count",
    )
    num_images: int = Field(4000, ge=1000, description="with a suite: images of a studio, a count")
    num_train_queries: int = Field(
        160, ge=8, description="with a suite: queries labelled to learn from, a count"
    )
    out: str = Field("runs/evaluate", description="folder for report.json and report.html")
    report: bool = Field(
        False, description="draw the page again from what an evaluation left in --out, asking nobody"
    )
