"""report.json: every figure of an evaluation as plain numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

from actors.judge import SHEET_CRITERIA
from cluster.profile import Profile
from jobs.evaluate import hpir
from jobs.evaluate.config import CHALLENGERS, EvaluateConfig, Match
from jobs.evaluate.figures import compared, judge_votes, per_query, protocols, winrate
from jobs.evaluate.figures.registry import AESTHETIC, METRICS
from jobs.evaluate.inputs import EvaluationInputs, VoteTable
from jobs.evaluate.language_models import Judgements, JudgeNames
from jobs.evaluate.systems import SystemResults
from jobs.evaluate.teacher import TeacherCandidates
from jobs.evaluate.truth import RatedTruth, Truth


@dataclass(frozen=True)
class EvaluationResults:
    """Everything that the systems and the judge returned, from which figures and page are made.

    systems: in the order of `SYSTEMS`. matched_pairs: (challenger, opponent) -> the rank-matched pairs of
    their results; empty if the judge compared no results. gate: (query, image_id) -> accuracy, 1 to 5; the
    teacher drops images below `threshold`. judgements: by the judge that scores; ratings: by the teacher's
    judge, the same object if one judge does both. nulls: "suffix", "axis" and "strength", as alignment fitted
    them; may be empty.
    """

    inputs: EvaluationInputs
    systems: Mapping[str, SystemResults]
    candidates: TeacherCandidates
    matched_pairs: Mapping[Match, list[winrate.MatchedPair]]
    judgements: Judgements
    ratings: Judgements
    gate: Mapping[tuple[str, str], float]
    threshold: float
    fingerprints: Mapping[str, str]
    profile: Profile
    judges: JudgeNames
    nulls: Mapping[str, Any] = field(default_factory=dict)

    @property
    def over_baseline(self) -> dict[str, Match]:
        """challenger -> its match with the baseline, if the judge compared results."""
        return {match[0]: match for match in self.matched_pairs if match[1] == "baseline"}

    def margins(self, match: Match, protocol: str) -> np.ndarray:
        """How much the judge prefers the challenger's results to the opponent's, float [Q, 2].

        protocol: one of the config's, or `sheet` with one criterion, such as "sheet, diversity".
        """
        if protocol.startswith("sheet"):
            criteria = [name for name in SHEET_CRITERIA if name in protocol] or SHEET_CRITERIA
            rows = rows_of(self.inputs.queries, self.systems, match)
            return protocols.sheet_margins(rows, self.judgements, criteria)
        pairs = self.matched_pairs[match]
        return protocols.margins(protocol, self.inputs.queries, pairs, self.judgements, self.threshold)

    def judged_votes(self, config: EvaluateConfig) -> pa.Table:
        """What the judge said about the rows that people voted on; no rows if it compared no results."""
        tables = self.inputs.vote_tables if self.matched_pairs else []
        return judge_votes.table(config.protocols, tables, self.judgements)

    def differs(self, match: Match) -> np.ndarray:
        """Whether the challenger's results differ from the opponent's, bool [Q]."""
        pairs = zip(*(self.systems[name].top for name in match), strict=True)
        return np.array([a != b for a, b in pairs], bool)

    @cached_property
    def values(self) -> dict[str, dict[str, per_query.QueryValues]]:
        """system -> metric -> its values by query."""
        return {name: per_query.values_of(found, self.inputs) for name, found in self.systems.items()}

    @cached_property
    def marks(self) -> Truth | None:
        """The truth, else the judge's ratings, else None."""
        if self.inputs.truth is not None:
            return self.inputs.truth
        return self.rated if self.matched_pairs else None

    @property
    def rated(self) -> RatedTruth:
        """The judge's ratings of the results in place of a truth."""
        accuracy = {**self.gate, **self.judgements.accuracy}
        return RatedTruth(accuracy, self.judgements.aesthetics, self.threshold)


def rows_of(
    queries: Sequence[str], systems: Mapping[str, SystemResults], match: Match
) -> list[protocols.QueryRows]:
    """(query, the challenger's results, the opponent's results) of each query."""
    lists = zip(queries, *(systems[name].top for name in match), strict=True)
    return [(query, tuple(after), tuple(before)) for query, after, before in lists]


def document(found: EvaluationResults, config: EvaluateConfig) -> dict:
    """The content of report.json, without versions and times."""
    inputs, values = found.inputs, found.values
    sampling = {"num_resamples": config.num_resamples, "seed": config.seed}
    measured = {name: per_query.estimates(own, tuple(METRICS), **sampling) for name, own in values.items()}
    challengers = [name for name in CHALLENGERS if name in values]
    judged = _judged(found, sampling)
    best = _best_null(measured, judged)
    return {
        "num_images": len(inputs.gallery),
        "num_queries": len(inputs.queries),
        "num_learned_queries": inputs.num_learned,
        "encoders": dict(found.fingerprints),
        "systems": measured,
        "nulls": {name: found.nulls[name] for name in ("suffix", "strength") if found.nulls},
        "best_null": best,
        "differences": {
            name: per_query.differences(values[after], values[before], **sampling)
            for name, (after, before) in compared.comparisons(values, best).items()
        },
        "share_of_teacher_gain": {name: _shares(measured, name) for name in challengers},
        "win_rate": {
            f"{match[0]}_vs_{match[1]}": _win_rate(found, match, sampling)
            for match in found.matched_pairs
            if "ranker" in config.protocols
        },
        "judges": _judges(found),
        "judge_table": _judge_table(found, config, sampling),
        "judged": judged,
        "captions": _captions(found),
        "hpir": {table.name: _votes(found, table, sampling) for table in inputs.hpir_tables},
        "pairs": {table.name: _votes(found, table, sampling) for table in inputs.pair_tables},
        "teacher": _teacher(found, config),
    }


def _best_null(measured: Mapping[str, Mapping[str, dict]], judged: Mapping[str, Any]) -> str | None:
    """The null with the higher aesthetic@k by the truth, else by the judge, else the one that people prefer;
    None if nothing tells.
    """
    for figures, metric in ((measured, AESTHETIC), (judged, AESTHETIC), (measured, "hpir_aesthetic")):
        scores = {name: figures[name][metric]["value"] for name in measured if name in figures}
        if best := compared.best_null(scores):
            return best
    return None


def _shares(measured: Mapping[str, Mapping[str, dict]], challenger: str) -> dict:
    if "teacher" not in measured:
        return {}
    names, systems = (AESTHETIC, "hpir_aesthetic"), ("baseline", "teacher", challenger)
    return {n: per_query.share_of_gain(*(measured[s][n]["value"] for s in systems)) for n in names}


def _win_rate(found: EvaluationResults, match: Match, sampling: dict) -> dict:
    """The judge's win rate of the challenger over the opponent."""
    margins, differs = found.margins(match, "ranker"), found.differs(match)
    return winrate.summary(winrate.outcomes(margins), **sampling) | {
        "order_consistency": winrate.order_consistency(margins, differs),
        "num_identical_rows": int((~differs).sum()),
        "num_judged_pairs": len(found.matched_pairs[match]),
    }


def _judges(found: EvaluationResults) -> dict:
    """Who judged, how much, and whether the judge that scores also labelled the preferences."""
    asked = {id(one): one for one in (found.judgements, found.ratings)}.values()
    return {
        "teacher": found.judges.teacher or None,
        "scoring": found.judges.scoring or None,
        "labelled": list(found.judges.labelled),
        "num_questions": sum(one.num_answers for one in asked),
        "num_unanswered": sum(one.num_unanswered for one in asked),
        "warning": found.judges.warning or None,
    }


def _judge_table(found: EvaluationResults, config: EvaluateConfig, sampling: dict) -> list[dict]:
    """How each protocol judges the results that differ from the baseline's, over all challengers, and how
    often it agrees with people, by the criterion that they voted on.
    """
    if not found.matched_pairs:
        return []
    differ = {match: found.differs(match) for match in found.over_baseline.values()}
    sheets = [f"sheet, {name}" for name in SHEET_CRITERIA] if "sheet" in config.protocols else []
    margins = {
        protocol: np.concatenate([found.margins(match, protocol)[rows] for match, rows in differ.items()])
        for protocol in (*config.protocols, *sheets)
    }
    queries = [found.inputs.queries[row] for rows in differ.values() for row in np.flatnonzero(rows)]
    return judge_votes.with_agreement(
        protocols.table(queries, margins, **sampling), found.judged_votes(config), **sampling
    )


def _judged(found: EvaluationResults, sampling: dict) -> dict:
    """Precision and aesthetics of the results by the judge's own ratings, and the judge's errors."""
    if not found.matched_pairs:
        return {}
    judged = {}
    for name, results in found.systems.items():
        values = per_query.marked_values(*per_query.marks(found.inputs.queries, results.top, found.rated))
        judged[name] = per_query.estimates(values, tuple(values), **sampling)
    return judged | judge_against_truth(found)


def judge_against_truth(found: EvaluationResults) -> dict:
    """Over the (query, image) of the evaluated queries: the shares whose accuracy the teacher's gate and the
    judge rate correctly, and Spearman's rho between the judge's aesthetics and the truth.
    """
    truth = found.inputs.truth
    if truth is None:
        return {}
    return {
        "accuracy_gate_right": _share_right(found, truth, found.gate),
        "judge_accuracy_right": _share_right(found, truth, found.judgements.accuracy),
        "aesthetics_spearman": _aesthetics_rho(found, truth),
    }


def _share_right(
    found: EvaluationResults, truth: Truth, rated: Mapping[tuple[str, str], float]
) -> float | None:
    queries = set(found.inputs.queries)
    right = [
        (rating >= found.threshold) == truth.accurate(query, [image])[0]
        for (query, image), rating in rated.items()
        if query in queries
    ]
    return float(np.mean(right)) if right else None


def _aesthetics_rho(found: EvaluationResults, truth: Truth) -> float | None:
    queries = set(found.inputs.queries)
    known = [
        (truth.aesthetics(query, [image])[0], rating)
        for (query, image), rating in found.judgements.aesthetics.items()
        if query in queries
    ]
    scores = np.array(known).reshape(-1, 2)
    scores = scores[~np.isnan(scores).any(axis=1)]
    if len(scores) < 3:
        return None
    found_rho: Any = stats.spearmanr(*scores.T)
    return None if np.isnan(found_rho.statistic) else float(found_rho.statistic)


def _captions(found: EvaluationResults) -> dict:
    captions = found.inputs.captions
    teacher = found.systems.get("teacher")
    return {
        "column": captions.column,
        "num_queries": len(captions.texts),
        "num_teacher_queries": len(teacher.caption_ranks) if teacher else 0,
        "num_images": captions.num_images,
        "num_sharing": captions.num_sharing,
        "num_learned": captions.num_learned,
        "num_test": captions.num_test,
    }


def _votes(found: EvaluationResults, table: VoteTable, sampling: dict) -> dict:
    """Agreement of every system with one table of votes."""
    counts: dict = {
        "num_rows": len(table.rows),
        "num_left_out": table.num_left_out,
        "num_learned": table.num_learned,
        "confidence": {
            criterion: hpir.confidence_histogram(votes) for criterion, votes in table.votes.items()
        },
    }
    agreed = {
        system: per_query.agreement(table, results.vote_scores[table.name])
        for system, results in found.systems.items()
    }
    return counts | {s: per_query.estimates(own, tuple(own), **sampling) for s, own in agreed.items()}


def _teacher(found: EvaluationResults, config: EvaluateConfig) -> dict:
    label = found.profile.label
    return {
        "style": label.style,
        "top_k": config.teacher_top_k,
        "min_accuracy": found.threshold,
        "semantic": {"judge": "judge", "encoder": "baseline"}[label.semantic],
        "num_rephrase_errors": found.candidates.num_rephrase_errors,
    }
