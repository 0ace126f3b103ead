"""From answers to figures: per-query values of every metric, their estimates and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from jobs.evaluate import hpir
from jobs.evaluate.config import DIVERSITY_K, RECALLS, TOP_K
from jobs.evaluate.figures import metrics
from jobs.evaluate.inputs import VoteTable
from jobs.evaluate.systems import Answers

HEADLINE = (
    *(f"recall@{k}" for k in RECALLS),
    f"precision@{TOP_K}",
    f"aesthetic@{TOP_K}",
    "hpir_accuracy",
    "hpir_aesthetic",
    "zero_shot",
    f"vendi@{DIVERSITY_K}",
)


class Truth(Protocol):
    """What is known of the images; a studio also knows `latents`, what each scene is made of."""

    def accurate(self, query: str, image_ids: Sequence[str]) -> np.ndarray:
        """Whether everything the query names is in each image, bool [N]."""
        ...

    def aesthetics(self, image_ids: Sequence[str]) -> np.ndarray:
        """True aesthetics of each image, float [N] in [0, 1]."""
        ...


@dataclass(frozen=True)
class Series:
    """One metric of one system: a value for each query, and how much each counts. Both float [Q]."""

    values: np.ndarray
    weights: np.ndarray

    @classmethod
    def even(cls, values: np.ndarray) -> "Series":
        return cls(values, np.ones(len(values)))


def true_marks(
    queries: Sequence[str], rows: Sequence[Sequence[str]], truth: Truth
) -> tuple[np.ndarray, np.ndarray]:
    """(accurate bool, aesthetics float), both [Q, TOP_K]; a missing result is inaccurate."""
    accurate = np.zeros((len(queries), TOP_K), bool)
    aesthetics = np.zeros((len(queries), TOP_K))
    for number, (query, ids) in enumerate(zip(queries, rows, strict=True)):
        shown = list(ids[:TOP_K])
        if shown:
            accurate[number, : len(shown)] = truth.accurate(query, shown)
            aesthetics[number, : len(shown)] = truth.aesthetics(shown)
    return accurate, aesthetics


def series_of(
    answers: Answers, queries: Sequence[str], votes: Sequence[VoteTable], truth: Truth | None
) -> dict[str, Series]:
    """Every metric that can be measured of one system; HPIR metrics come from the first of `votes`."""
    found = {f"recall@{k}": Series.even(metrics.recall_at(answers.caption_ranks, k)) for k in RECALLS}
    found[f"vendi@{DIVERSITY_K}"] = Series.even(answers.diversity)
    if len(answers.recognised):
        found["zero_shot"] = Series.even(answers.recognised.astype(float))
    if truth is not None:
        accurate, aesthetics = true_marks(queries, answers.rows, truth)
        found[f"precision@{TOP_K}"] = Series.even(metrics.precision_at(accurate))
        found[f"aesthetic@{TOP_K}"] = Series.even(metrics.aesthetic_at(accurate, aesthetics))
    if votes:
        agreed = agreement_series(votes[0], answers.votes[votes[0].name])
        found |= {f"hpir_{criterion}": series for criterion, series in agreed.items()}
    return found


def agreement_series(table: VoteTable, scores: np.ndarray) -> dict[str, Series]:
    """criterion -> agreement with the majority by query, weighted by confidence; `scores` float [N, 2]."""
    queries = [row.query for row in table.rows]
    found = {}
    for criterion in hpir.CRITERIA:
        if all(criterion in row.votes for row in table.rows):
            agrees, confidence = hpir.agreement(scores, [row.votes[criterion] for row in table.rows])
            found[criterion] = Series(*metrics.by_query(queries, agrees, confidence))
    return found


def estimates(
    series: Mapping[str, Series], names: Sequence[str], *, num_resamples: int, seed: int
) -> dict[str, dict]:
    """name -> {"value", "ci95", "num_queries"}; null for a metric that was not measured."""
    empty = Series.even(np.array([]))
    return {
        name: metrics.estimate(
            (s := series.get(name, empty)).values, s.weights, num_resamples=num_resamples, seed=seed
        ).as_dict()
        for name in names
    }


def differences(
    after: Mapping[str, Series], before: Mapping[str, Series], *, num_resamples: int, seed: int
) -> dict[str, dict]:
    """after - before of every metric both have, over the same queries: paired intervals and "p_value"."""
    sampling = {"num_resamples": num_resamples, "seed": seed}
    found = {}
    for name, old in before.items():
        new = after.get(name)
        if new is not None and len(new.values) == len(old.values):
            change = metrics.paired_difference(new.values, old.values, old.weights, **sampling)
            p_value = metrics.sign_flip_p(new.values - old.values, old.weights, **sampling)
            found[name] = change.as_dict() | {"p_value": p_value}
    return found


def share_of_gain(baseline: float | None, teacher: float | None, aligned: float | None) -> float | None:
    """Share of the teacher's gain that the aligned encoder reached; None where the teacher gained nothing."""
    if baseline is None or teacher is None or aligned is None or teacher <= baseline:
        return None
    return round((aligned - baseline) / (teacher - baseline), 6)
