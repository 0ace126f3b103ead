"""Every metric and every compared system, described once: tables, charts, pages and docs read this."""

from dataclasses import dataclass

from jobs.evaluate.config import DIVERSITY_K, RECALLS, TOP_K


@dataclass(frozen=True)
class Metric:
    """One figure of a system.

    key: its name in report.json and series.parquet. title: its name in tables and charts. meaning: what it
    measures, as a phrase. unit: what a value counts, and its range.
    """

    key: str
    title: str
    meaning: str
    unit: str = "share, 0 to 1"
    higher_is_better: bool = True

    @property
    def direction(self) -> str:
        return "higher is better" if self.higher_is_better else "lower is better"


RECALL, PRECISION, AESTHETIC = f"recall@{max(RECALLS)}", f"precision@{TOP_K}", f"aesthetic@{TOP_K}"
VENDI = f"vendi@{DIVERSITY_K}"


def _among_first(k: int) -> str:
    return f"among the first {k} results" if k > 1 else "as the first result"


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        *(
            Metric(
                f"recall@{k}",
                f"text-to-image recall@{k}",
                f"share of captions with their own image {_among_first(k)} of the whole gallery",
            )
            for k in RECALLS
        ),
        *(
            Metric(
                f"image_recall@{k}",
                f"image-to-text recall@{k}",
                f"share of images with their own caption {_among_first(k)} of the sampled captions",
            )
            for k in RECALLS
        ),
        Metric(
            PRECISION,
            PRECISION,
            f"share of the first {TOP_K} results that show everything the query names",
        ),
        Metric(
            AESTHETIC,
            AESTHETIC,
            f"mean beauty of the first {TOP_K} results; an inaccurate image counts 0",
            "beauty, 0 to 1",
        ),
        Metric(
            "hpir_accuracy",
            "agreement with people on accuracy",
            "people vote on which of two groups of images is more accurate: how often the system sides with "
            "the majority, weighted by the majority's lead (HPIR form, arXiv 2406.09397); 0.5 is chance",
        ),
        Metric(
            "hpir_aesthetic",
            "agreement with people on aesthetics",
            "the same for votes on which of the two groups is more beautiful",
        ),
        Metric(
            "zero_shot",
            "zero-shot accuracy",
            'share of images that are nearer to the text "a ..." with their own label than with any other',
        ),
        Metric(
            VENDI,
            f"Vendi score of the first {DIVERSITY_K}",
            f"effective number of different images among the first {DIVERSITY_K} results, by the baseline's "
            "vectors (arXiv 2210.02410)",
            f"images, 1 to {DIVERSITY_K}",
        ),
    )
}

SYSTEM_TITLES = {
    "baseline": "baseline",
    "suffix": "suffix",
    "axis": "axis",
    "rephrase": "rephrase",
    "teacher": "teacher",
    "aligned": "aligned",
    "text": "aligned (text)",
}
