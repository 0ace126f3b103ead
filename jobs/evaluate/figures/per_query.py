"""From results to figures: values of every metric by query, their estimates and paired differences."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jobs.evaluate import hpir
from jobs.evaluate.config import RECALLS, TOP_K
from jobs.evaluate.figures import metrics
from jobs.evaluate.figures.registry import AESTHETIC, PRECISION, VENDI
from jobs.evaluate.inputs import EvaluationInputs, VoteTable
from jobs.evaluate.systems import SystemResults
from jobs.evaluate.truth import Truth


@dataclass(frozen=True)
class QueryValues:
    """One metric of one system: its value for each query, and the query's weight. Both float [Q].

    Where rows of a query are not independent, or a metric has no queries, Q counts groups: queries, captions
    or subjects, which the bootstrap draws.
    """

    values: np.ndarray
    weights: np.ndarray

    @classmethod
    def unweighted(cls, values: np.ndarray) -> "QueryValues":
        return cls(values, np.ones(len(values)))


def marks(
    queries: Sequence[str], results: Sequence[Sequence[str]], truth: Truth
) -> tuple[np.ndarray, np.ndarray]:
    """(accurate bool, aesthetics float), both [Q, TOP_K]; a missing result is inaccurate, and unknown
    beauty is 0.
    """
    accurate = np.zeros((len(queries), TOP_K), bool)
    aesthetics = np.zeros((len(queries), TOP_K))
    for index, (query, ids) in enumerate(zip(queries, results, strict=True)):
        shown = list(ids[:TOP_K])
        if shown:
            accurate[index, : len(shown)] = truth.accurate(query, shown)
            aesthetics[index, : len(shown)] = np.nan_to_num(truth.aesthetics(query, shown))
    return accurate, aesthetics


def marked_values(accurate: np.ndarray, aesthetics: np.ndarray) -> dict[str, QueryValues]:
    """precision@k and aesthetic@k of marks [Q, k]."""
    return {
        PRECISION: QueryValues.unweighted(metrics.precision_at(accurate)),
        AESTHETIC: QueryValues.unweighted(metrics.aesthetic_at(accurate, aesthetics)),
    }


def values_of(found: SystemResults, inputs: EvaluationInputs) -> dict[str, QueryValues]:
    """Every metric that can be measured for one system; HPIR metrics come from the first table."""
    values = {
        f"recall@{k}": QueryValues.unweighted(metrics.recall_at(found.caption_ranks, k)) for k in RECALLS
    }
    values[VENDI] = QueryValues.unweighted(found.diversity)
    values |= image_recalls(found.image_ranks, inputs.captions.owners)
    if found.zero_shot_hits:
        values["zero_shot"] = by_group(found.zero_shot_hits, inputs.labels)
    if inputs.truth is not None:
        values |= marked_values(*marks(inputs.queries, found.top, inputs.truth))
    if inputs.hpir_tables:
        table = inputs.hpir_tables[0]
        agreed = agreement(table, found.vote_scores[table.name])
        values |= {f"hpir_{criterion}": of_criterion for criterion, of_criterion in agreed.items()}
    return values


def image_recalls(ranks: Mapping[str, int], owners: Mapping[str, int]) -> dict[str, QueryValues]:
    """image_recall@k of the rank of each image's own caption, by caption: images that share one are not
    independent.
    """
    hits = {k: {image_id: rank <= k for image_id, rank in ranks.items()} for k in RECALLS}
    return {f"image_recall@{k}": by_group(hits[k], owners) for k in RECALLS if ranks}


def by_group(hits: Mapping[str, bool], groups: Mapping[str, Hashable]) -> QueryValues:
    """Share of hits in each group of images, weighted by its number of images.

    The bootstrap then draws groups (clusters), because the images of one subject, or with one caption, are
    not independent. hits, groups: image_id -> hit, group; the groups are in the order of the image_ids, so
    that systems with the same images can be compared.
    """
    image_ids = sorted(hits)
    values = np.array([hits[image_id] for image_id in image_ids], float)
    names = [groups[image_id] for image_id in image_ids]
    return QueryValues(*metrics.by_query(names, values, np.ones(len(values))))


def agreement(table: VoteTable, scores: np.ndarray) -> dict[str, QueryValues]:
    """criterion -> agreement with the majority by query, weighted by confidence; `scores` float [N, 2]."""
    queries, found = [row.query for row in table.rows], {}
    for criterion, votes in table.votes.items():
        agrees, confidence = hpir.agreement(scores, votes)
        found[criterion] = QueryValues(*metrics.by_query(queries, agrees, confidence))
    return found


def estimates(
    values: Mapping[str, QueryValues], names: Sequence[str], *, num_resamples: int, seed: int
) -> dict[str, dict]:
    """name -> {"value", "ci95", "num_queries"}; null for a metric that was not measured."""
    sampling = {"num_resamples": num_resamples, "seed": seed}
    empty = QueryValues.unweighted(np.array([]))
    chosen = {name: values.get(name, empty) for name in names}
    return {name: metrics.estimate(v.values, v.weights, **sampling).as_dict() for name, v in chosen.items()}


def differences(
    after: Mapping[str, QueryValues], before: Mapping[str, QueryValues], *, num_resamples: int, seed: int
) -> dict[str, dict]:
    """after - before of every metric that both have, over the same queries: paired intervals, "p_value"."""
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
    """Share of the teacher's gain that the aligned encoder reached; None if the teacher gained nothing."""
    if baseline is None or teacher is None or aligned is None or teacher <= baseline:
        return None
    return round((aligned - baseline) / (teacher - baseline), 6)
