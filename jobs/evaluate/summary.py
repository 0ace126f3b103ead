"""report.json: every figure of an evaluation as plain numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from cluster.profile import Profile
from jobs.evaluate import language_models
from jobs.evaluate.asking import Asked, Candidates, Duels
from jobs.evaluate.config import CHALLENGERS, TOP_K, EvaluateConfig
from jobs.evaluate.figures import metrics, per_query, protocols, winrate
from jobs.evaluate.inputs import VoteTable
from jobs.evaluate.systems import Answers


class JudgedTruth:
    """Ratings in the place of a truth: for real photographs, where nobody knows one.

    accuracy: (query, image_id) -> [1, 5], by the judge, or by the teacher's gate where the judge was not
    asked. aesthetics: image_id -> [1, 5], by the judge.
    """

    def __init__(
        self, accuracy: Mapping[tuple[str, str], float], aesthetics: Mapping[str, float], threshold: float
    ) -> None:
        self.rated_accuracy, self.rated_aesthetics, self.threshold = accuracy, aesthetics, threshold

    def accurate(self, query: str, image_ids: list[str]) -> np.ndarray:
        """Rated accuracy is at least the threshold, bool [N]; unanswered is not."""
        return np.array([self.rated_accuracy[query, i] >= self.threshold for i in image_ids], bool)

    def aesthetics(self, image_ids: list[str]) -> np.ndarray:
        """Rated aesthetics moved from [1, 5] to [0, 1], float [N]; unanswered is 0."""
        return np.nan_to_num((np.array([self.rated_aesthetics[i] for i in image_ids]) - 1) / 4)


@dataclass(frozen=True)
class Evaluation:
    """Everything that was asked and answered; what the figures and the page are made of.

    answers: of each of `SYSTEMS` that was asked, in their order. duels: empty where the judge compared no
    rows. gate: (query, image_id) -> accuracy, 1 to 5, by which the teacher dropped images.
    """

    asked: Asked
    answers: Mapping[str, Answers]
    candidates: Candidates
    duels: Duels
    verdicts: language_models.Verdicts
    gate: Mapping[tuple[str, str], float]
    threshold: float
    fingerprints: Mapping[str, str]
    profile: Profile
    num_questions: int  # that the judge was asked

    def margins(self, challenger: str, protocol: str) -> np.ndarray:
        """How far the judge finds the challenger's rows ahead of the baseline's, float [Q, 2]."""
        duels = self.duels[challenger]
        return protocols.margins(protocol, self.asked.queries, duels, self.verdicts, self.threshold)

    def differs(self, challenger: str) -> np.ndarray:
        """Whether the challenger's row differs from the baseline's at all, bool [Q]."""
        pairs = zip(self.answers[challenger].rows, self.answers["baseline"].rows, strict=True)
        return np.array([a != b for a, b in pairs], bool)

    def people(self, challenger: str, seed: int) -> np.ndarray | None:
        """WIN, TIE or LOSS of the challenger's rows by simulated raters, int [Q]; None outside a studio."""
        if self.asked.truth is None:
            return None
        from lab.suite import people  # the studio's words are needed only where it is the world

        rows = (self.answers[system].rows for system in (challenger, "baseline"))
        return people.outcomes(self.asked.truth.latents, self.asked.queries, *rows, seed=seed)

    @cached_property
    def series(self) -> dict[str, dict[str, per_query.Series]]:
        """system -> metric -> its values by query."""
        asked = self.asked
        return {
            name: per_query.series_of(answers, asked.queries, asked.votes, asked.truth)
            for name, answers in self.answers.items()
        }

    @cached_property
    def marks(self) -> per_query.Truth | None:
        """Who says what is accurate and beautiful: the truth, else the judge if asked, else nobody."""
        if self.asked.truth is not None:
            return self.asked.truth
        return self.judged if self.duels else None

    @property
    def judged(self) -> JudgedTruth:
        """What the judge said of the rows in the place of a truth."""
        accuracy = {**self.gate, **self.verdicts.accuracy}
        return JudgedTruth(accuracy, self.verdicts.aesthetics, self.threshold)


def document(evaluation: Evaluation, config: EvaluateConfig) -> dict:
    """The content of report.json, without versions and times."""
    asked, series = evaluation.asked, evaluation.series
    sampling = {"num_resamples": config.num_resamples, "seed": config.seed}
    measured = {
        name: per_query.estimates(found, per_query.HEADLINE, **sampling) for name, found in series.items()
    }
    challengers = [name for name in CHALLENGERS if name in series]
    return {
        "num_images": len(asked.gallery),
        "num_queries": len(asked.queries),
        "num_learned_queries": asked.num_learned,
        "encoders": dict(evaluation.fingerprints),
        "metrics": _each(measured, "value"),
        "ci95": _each(measured, "ci95"),
        "difference": {
            f"{name}_minus_baseline": per_query.differences(series[name], series["baseline"], **sampling)
            for name in challengers
        },
        "share_of_teacher_gain": {name: _shares(measured, name) for name in challengers},
        "win_rate": {
            f"{name}_vs_baseline": _win_rate(evaluation, name, sampling)
            for name in evaluation.duels
            if "ranker" in config.protocols
        },
        "judge_table": _judge_table(evaluation, config, sampling),
        "judged": _judged(evaluation, sampling),
        "captions": _captions(evaluation),
        "hpir": {table.name: _votes(evaluation, table, sampling) for table in asked.votes},
        "pairs": {table.name: _votes(evaluation, table, sampling) for table in asked.pairs},
        "teacher": _teacher(evaluation, config),
    }


def _each(measured: Mapping[str, Mapping[str, dict]], key: str) -> dict:
    return {system: {name: m[key] for name, m in found.items()} for system, found in measured.items()}


def _shares(measured: Mapping[str, Mapping[str, dict]], challenger: str) -> dict:
    if "teacher" not in measured:
        return {}
    names, systems = (f"aesthetic@{TOP_K}", "hpir_aesthetic"), ("baseline", "teacher", challenger)
    return {n: per_query.share_of_gain(*(measured[s][n]["value"] for s in systems)) for n in names}


def _win_rate(evaluation: Evaluation, challenger: str, sampling: dict) -> dict:
    """The judge's win rate of the challenger over the baseline; in a studio simulated people's beside it."""
    margins, differs = evaluation.margins(challenger, "ranker"), evaluation.differs(challenger)
    outcomes = winrate.outcomes(margins)
    found = winrate.summary(outcomes, **sampling)
    found["order_consistency"] = winrate.order_consistency(margins, differs)
    found["num_identical_rows"] = int((~differs).sum())
    found["num_judged_pairs"] = len(evaluation.duels[challenger])
    people = evaluation.people(challenger, sampling["seed"])
    if people is not None:
        decided = (people != winrate.TIE) & (outcomes != winrate.TIE)
        agrees = float((people == outcomes)[decided].mean()) if decided.any() else None
        found["people"] = winrate.summary(people, **sampling)
        found["judge_agrees_with_people"] = agrees
    return found


def _judge_table(evaluation: Evaluation, config: EvaluateConfig, sampling: dict) -> list[dict]:
    """How each protocol judges the rows that differ, all challengers' together, and if people agree."""
    if not evaluation.duels:
        return []
    differ = {name: evaluation.differs(name) for name in evaluation.duels}
    margins = {
        protocol: np.concatenate([evaluation.margins(n, protocol)[rows] for n, rows in differ.items()])
        for protocol in config.protocols
    }
    people = None
    if evaluation.asked.truth is not None:
        voted = [evaluation.people(name, sampling["seed"])[rows] for name, rows in differ.items()]
        people = np.concatenate(voted)
    queries = [evaluation.asked.queries[row] for rows in differ.values() for row in np.flatnonzero(rows)]
    return protocols.table(queries, margins, people, **sampling)


def _judged(evaluation: Evaluation, sampling: dict) -> dict:
    """Precision and aesthetics of the rows by the judge's own ratings, and how good a judge it is."""
    if not evaluation.duels:
        return {}
    judged = evaluation.judged
    found = {}
    for name, answers in evaluation.answers.items():
        marks = per_query.true_marks(evaluation.asked.queries, answers.rows, judged)
        series = {
            f"precision@{TOP_K}": per_query.Series.even(metrics.precision_at(marks[0])),
            f"aesthetic@{TOP_K}": per_query.Series.even(metrics.aesthetic_at(*marks)),
        }
        found[name] = per_query.estimates(series, tuple(series), **sampling)
    return found | judge_against_truth(evaluation)


def judge_against_truth(evaluation: Evaluation) -> dict:
    """Shares of (query, image) that the teacher's gate and the judge's own accuracy get right, and Spearman's
    rho of the judge's aesthetics.
    """
    truth, verdicts = evaluation.asked.truth, evaluation.verdicts
    if truth is None or len(verdicts.aesthetics) < 3:
        return {}
    ids = [i for i, score in verdicts.aesthetics.items() if not np.isnan(score)]
    rho = stats.spearmanr([verdicts.aesthetics[i] for i in ids], truth.aesthetics(ids)).statistic
    return {
        "accuracy_gate_right": _share_right(evaluation, evaluation.gate),
        "judge_accuracy_right": _share_right(evaluation, verdicts.accuracy),
        "aesthetics_spearman": None if np.isnan(rho) else float(rho),
    }


def _share_right(evaluation: Evaluation, rated: Mapping[tuple[str, str], float]) -> float | None:
    """Of the images rated for the evaluated queries, how many are told right by the threshold."""
    truth, queries = evaluation.asked.truth, set(evaluation.asked.queries)
    right = [
        (rating >= evaluation.threshold) == truth.accurate(query, [image])[0]
        for (query, image), rating in rated.items()
        if query in queries
    ]
    return float(np.mean(right)) if right else None


def _captions(evaluation: Evaluation) -> dict:
    captions = evaluation.asked.captions
    teacher = evaluation.answers.get("teacher")
    return {
        "column": captions.column,
        "num_queries": len(captions.texts),
        "num_teacher_queries": len(teacher.caption_ranks) if teacher else 0,
        "num_images": captions.num_images,
        "num_sharing": captions.num_sharing,
        "num_learned": captions.num_learned,
    }


def _votes(evaluation: Evaluation, table: VoteTable, sampling: dict) -> dict:
    """Agreement of every system with one table of votes."""
    found: dict = {
        "num_rows": len(table.rows),
        "num_left_out": table.num_left_out,
        "num_learned": table.num_learned,
    }
    for system, answers in evaluation.answers.items():
        series = per_query.agreement_series(table, answers.votes[table.name])
        found[system] = per_query.estimates(series, tuple(series), **sampling)
    return found


def _teacher(evaluation: Evaluation, config: EvaluateConfig) -> dict:
    return {
        "style": evaluation.profile.label.style,
        "top_k": config.teacher_top_k,
        "min_accuracy": evaluation.threshold,
        "semantic": {"judge": "judge", "encoder": "encoder before"}[evaluation.profile.label.semantic],
        "num_rephrase_errors": evaluation.candidates.num_failed,
        "num_questions": evaluation.num_questions,
        "num_unanswered": evaluation.verdicts.num_unanswered,
    }
