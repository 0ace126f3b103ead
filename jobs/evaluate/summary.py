"""report.json: every figure of an evaluation as plain numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from cluster.profile import Profile
from jobs.evaluate import TOP_K, EvaluateConfig, figures, judging, metrics, winrate
from jobs.evaluate.asking import Asked, Candidates, Duel, judged_rows
from jobs.evaluate.inputs import VoteTable
from jobs.evaluate.systems import Answers

SYSTEMS = ("baseline", "teacher", "aligned")


class JudgedTruth:
    """The judge's ratings in the place of a truth: for real photographs, where nobody knows one."""

    def __init__(self, verdicts: judging.Verdicts, threshold: float) -> None:
        self.verdicts = verdicts
        self.threshold = threshold

    def accurate(self, query: str, image_ids: list[str]) -> np.ndarray:
        """Judged accuracy is at least the threshold, bool [N]; unanswered is not."""
        return np.array([self.verdicts.accuracy[query, i] >= self.threshold for i in image_ids], bool)

    def aesthetics(self, image_ids: list[str]) -> np.ndarray:
        """Judged aesthetics moved from [1, 5] to [0, 1], float [N]; unanswered is 0."""
        return np.nan_to_num((np.array([self.verdicts.aesthetics[i] for i in image_ids]) - 1) / 4)


@dataclass(frozen=True)
class Evaluation:
    """Everything that was asked and answered; what the figures and the page are made of."""

    asked: Asked
    answers: Mapping[str, Answers]
    candidates: Candidates
    duels: list[Duel]
    verdicts: judging.Verdicts
    threshold: float
    fingerprints: Mapping[str, str]
    profile: Profile
    rows_judged: bool  # whether the judge compared and rated the rows
    num_questions: int  # that the judge was asked

    @cached_property
    def preferences(self) -> tuple[np.ndarray, np.ndarray]:
        """P(aligned row better) of each query in both orders, float [Q] each."""
        return judged_rows(self.asked, self.duels, self.verdicts)

    @cached_property
    def differs(self) -> np.ndarray:
        """Whether the two rows of each query differ at all, bool [Q]."""
        pairs = zip(self.answers["aligned"].rows, self.answers["baseline"].rows, strict=True)
        return np.array([a != b for a, b in pairs], bool)

    @cached_property
    def marks(self) -> figures.Truth | None:
        """Who says what is accurate and beautiful: the truth, else the judge if asked, else nobody."""
        if self.asked.truth is not None:
            return self.asked.truth
        return JudgedTruth(self.verdicts, self.threshold) if self.rows_judged else None


def document(evaluation: Evaluation, config: EvaluateConfig) -> dict:
    """The content of report.json, without versions and times."""
    asked = evaluation.asked
    sampling = {"num_resamples": config.num_resamples, "seed": config.seed}
    series = {
        name: figures.series_of(answers, asked.queries, asked.votes, asked.truth)
        for name, answers in evaluation.answers.items()
    }
    measured = {
        name: figures.estimates(found, figures.HEADLINE, **sampling)
        for name, found in sorted(series.items(), key=lambda item: SYSTEMS.index(item[0]))
    }
    return {
        "num_images": asked.num_images,
        "num_queries": len(asked.queries),
        "encoders": dict(evaluation.fingerprints),
        "metrics": _each(measured, "value"),
        "ci95": _each(measured, "ci95"),
        "difference": {
            "aligned_minus_baseline": figures.differences(series["aligned"], series["baseline"], **sampling)
        },
        "share_of_teacher_gain": _shares(measured),
        "win_rate": _win_rate(evaluation, sampling) if evaluation.rows_judged else {},
        "judged": _judged(evaluation, sampling),
        "captions": _captions(evaluation),
        "hpir": {table.name: _votes(evaluation, table, sampling) for table in asked.votes},
        "pairs": {table.name: _votes(evaluation, table, sampling) for table in asked.pairs},
        "teacher": _teacher(evaluation, config),
    }


def _each(measured: Mapping[str, Mapping[str, dict]], key: str) -> dict:
    return {system: {name: m[key] for name, m in found.items()} for system, found in measured.items()}


def _shares(measured: Mapping[str, Mapping[str, dict]]) -> dict:
    if "teacher" not in measured:
        return {}
    names = (f"aesthetic@{TOP_K}", "hpir_aesthetic")
    return {n: figures.share_of_gain(*(measured[s][n]["value"] for s in SYSTEMS)) for n in names}


def _win_rate(evaluation: Evaluation, sampling: dict) -> dict:
    """The judge's win rate of aligned over baseline, and simulated people's beside it in a studio."""
    p_ab, p_ba = evaluation.preferences
    outcomes = winrate.row_outcomes(p_ab, p_ba)
    found = winrate.summary(outcomes, **sampling)
    found["order_consistency"] = winrate.order_consistency(p_ab, p_ba, evaluation.differs)
    found["num_identical_rows"] = int((~evaluation.differs).sum())
    found["num_judged_pairs"] = len(evaluation.duels)
    if evaluation.asked.truth is not None:
        people = people_outcomes(evaluation, sampling["seed"])
        decided = (people != winrate.TIE) & (outcomes != winrate.TIE)
        agrees = float((people == outcomes)[decided].mean()) if decided.any() else None
        found["people"] = winrate.summary(people, **sampling)
        found["judge_agrees_with_people"] = agrees
    return {"aligned_vs_baseline": found}


def people_outcomes(evaluation: Evaluation, seed: int) -> np.ndarray:
    """WIN, TIE or LOSS of the aligned row by the studio's simulated raters, int [Q]."""
    from jobs.evaluate import people  # the studio's words are needed only where it is the world

    asked = evaluation.asked
    rows = (evaluation.answers[system].rows for system in ("aligned", "baseline"))
    return people.outcomes(asked.truth.latents, asked.queries, *rows, seed=seed)


def aesthetic_change(evaluation: Evaluation, marks: figures.Truth) -> np.ndarray:
    """aesthetic@k of the aligned row minus that of the baseline's, by `marks`, float [Q]."""
    both = [
        metrics.aesthetic_at(*figures.true_marks(evaluation.asked.queries, evaluation.answers[s].rows, marks))
        for s in ("aligned", "baseline")
    ]
    # Rounded, so that the same images in another order are a tie.
    return np.round(both[0] - both[1], 9)


def _judged(evaluation: Evaluation, sampling: dict) -> dict:
    """Precision and aesthetics of the rows by the judge's own ratings, and how good a judge it is."""
    if not evaluation.rows_judged:
        return {}
    judged = JudgedTruth(evaluation.verdicts, evaluation.threshold)
    found = {}
    for name, answers in evaluation.answers.items():
        marks = figures.true_marks(evaluation.asked.queries, answers.rows, judged)
        series = {
            f"precision@{TOP_K}": figures.Series.even(metrics.precision_at(marks[0])),
            f"aesthetic@{TOP_K}": figures.Series.even(metrics.aesthetic_at(*marks)),
        }
        found[name] = figures.estimates(series, tuple(series), **sampling)
    return found | judge_against_truth(evaluation)


def judge_against_truth(evaluation: Evaluation) -> dict:
    """Share of (query, image) the judge's accuracy gate gets right, and Spearman's rho of its aesthetics."""
    truth, verdicts = evaluation.asked.truth, evaluation.verdicts
    if truth is None or len(verdicts.aesthetics) < 3:
        return {}
    right = []
    for query, ids in _rated_by_query(evaluation).items():
        judged = np.array([verdicts.accuracy[query, i] >= evaluation.threshold for i in ids])
        right += (judged == truth.accurate(query, ids)).tolist()
    ids = [i for i, score in verdicts.aesthetics.items() if not np.isnan(score)]
    rho = stats.spearmanr([verdicts.aesthetics[i] for i in ids], truth.aesthetics(ids)).statistic
    return {
        "accuracy_gate_right": float(np.mean(right)) if right else None,
        "aesthetics_spearman": None if np.isnan(rho) else float(rho),
    }


def _rated_by_query(evaluation: Evaluation) -> dict[str, list[str]]:
    """image_ids whose accuracy the judge rated, for each of the evaluated queries."""
    found: dict[str, list[str]] = {query: [] for query in evaluation.asked.queries}
    for query, image_id in evaluation.verdicts.accuracy:
        if query in found:
            found[query].append(image_id)
    return {query: ids for query, ids in found.items() if ids}


def _captions(evaluation: Evaluation) -> dict:
    captions = evaluation.asked.captions
    teacher = evaluation.answers.get("teacher")
    return {
        "column": captions.column,
        "num_queries": len(captions.texts),
        "num_teacher_queries": len(teacher.caption_ranks) if teacher else 0,
        "num_images": captions.num_images,
        "num_sharing": captions.num_sharing,
    }


def _votes(evaluation: Evaluation, table: VoteTable, sampling: dict) -> dict:
    """Agreement of every system with one table of votes."""
    found: dict = {"num_rows": len(table.rows), "num_left_out": table.num_left_out}
    for system in SYSTEMS:
        if system in evaluation.answers:
            series = figures.agreement_series(table, evaluation.answers[system].votes[table.name])
            found[system] = figures.estimates(series, tuple(series), **sampling)
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
