"""The teacher: the cascade that alignment distils.

Rephrase the query, retrieve its candidate images with the rephrased text and the baseline, drop those that
the judge or the baseline itself (the profile's `label.semantic`) rates inaccurate for the original query,
order the rest by the judge's aesthetics for that query. Dropped images only fill up a short list, the most
accurate first.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from actors.cascade import Retrieval, cascade_order
from cluster.profile import Profile
from cluster.tables import EncoderRecord, Store
from jobs.evaluate import hpir, language_models
from jobs.evaluate.config import DIVERSITY_K, EvaluateConfig
from jobs.evaluate.figures.metrics import rank_in_lists
from jobs.evaluate.inputs import EvaluationInputs
from jobs.evaluate.systems import EncoderSystem, SystemResults


@dataclass(frozen=True)
class TeacherCandidates:
    """The candidate images of each text, retrieved by the baseline with the rephrased text.

    texts: the queries, then the captions that the teacher searches. image_ids: one list per text.
    rephrased: text -> rephrased text, also of the queries that people voted on. num_rephrase_errors: texts
    that could not be rephrased.
    """

    texts: list[str] = field(default_factory=list)
    image_ids: list[list[str]] = field(default_factory=list)
    rephrased: dict[str, str] = field(default_factory=dict)
    num_rephrase_errors: int = 0

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(text, image_id) of all candidates."""
        return [(text, i) for text, ids in zip(self.texts, self.image_ids, strict=True) for i in ids]


def retrieve_candidates(
    config: EvaluateConfig, profile: Profile, store: Store, baseline: EncoderRecord, inputs: EvaluationInputs
) -> TeacherCandidates:
    """Rephrase and retrieve; a text that could not be rephrased is searched as it is.

    No candidates if the teacher is not evaluated. Raises JobFailure if no text could be rephrased.
    """
    if not config.teacher:
        return TeacherCandidates()
    texts = [*inputs.queries, *inputs.captions.texts[: config.num_teacher_captions]]
    retrieval = Retrieval(
        profile,
        store,
        baseline,
        style=profile.label.style,
        top_k=config.teacher_top_k,
        where=config.where,
        exact=True,
        plain_on_error=True,
    )
    distinct = list(dict.fromkeys([*texts, *(query for query, _ in inputs.voted_pairs)]))
    rows = language_models.collect(profile, retrieval.stages, lambda: retrieval.rows(distinct)).to_pylist()
    found = {row["query"]: row for row in rows}
    errors = [row["rephrase_error"] for row in rows if row["rephrase_error"]]
    language_models.refuse_if_all_failed("texts rephrased for the teacher", len(rows), len(errors), errors)
    return TeacherCandidates(
        texts,
        [found[text]["image_ids"] for text in texts],
        {text: row["rephrased"] or text for text, row in found.items()},
        len(errors),
    )


def questions(
    profile: Profile, baseline: EncoderSystem, pairs: Sequence[tuple[str, str]], threshold: float
) -> tuple[dict[tuple[str, str], float], language_models.JudgeQuestions]:
    """The accuracy of each (query, image_id) by the encoder, and the teacher's questions to the judge.

    The accuracy is empty where the judge rates it. An image that the encoder's gate drops needs no rating of
    beauty.
    """
    if profile.label.semantic == "judge":
        return {}, language_models.JudgeQuestions(aesthetics=pairs, accuracy=pairs)
    gate = baseline.ratings(pairs)
    accurate = [pair for pair in pairs if gate[pair] >= threshold]
    return gate, language_models.JudgeQuestions(aesthetics=accurate)


def results_of(
    inputs: EvaluationInputs,
    candidates: TeacherCandidates,
    accuracy: Mapping[tuple[str, str], float],
    aesthetics: Mapping[tuple[str, str], float],
    threshold: float,
) -> SystemResults:
    """The teacher's results, caption ranks and vote scores, from ratings in [1, 5].

    `accuracy` and `aesthetics` map (text, image_id) to its rating; of an inaccurate image, `aesthetics` may
    have none.
    """
    num_queries = len(inputs.queries)
    ranked = rank_candidates(
        candidates.texts, candidates.image_ids, accuracy, aesthetics, threshold=threshold
    )
    own: list[set[str]] = [set() for _ in candidates.texts[num_queries:]]
    for image_id, caption in inputs.captions.owners.items():
        if 0 <= caption < len(own):
            own[caption].add(image_id)
    scores = pair_scores(inputs.voted_pairs, accuracy, aesthetics, threshold=threshold)
    return SystemResults(
        [ids[:DIVERSITY_K] for ids in ranked[:num_queries]],
        rank_in_lists(ranked[num_queries:], [frozenset(ids) for ids in own]),
        {table.name: hpir.group_means(table.rows, scores) for table in inputs.vote_tables},
    )


def rank_candidates(
    texts: Sequence[str],
    candidates: Sequence[Sequence[str]],
    accuracy: Mapping[tuple[str, str], float],
    aesthetics: Mapping[tuple[str, str], float],
    *,
    threshold: float,
) -> list[list[str]]:
    """All candidate image_ids of each text in cascade order."""
    ranked = []
    for text, ids in zip(texts, candidates, strict=True):
        scores = _ratings([(text, image_id) for image_id in ids], accuracy, aesthetics)
        order = cascade_order(scores[:, 0], scores[:, 1], threshold=threshold)
        ranked.append([ids[index] for index in order])
    return ranked


def pair_scores(
    pairs: Sequence[tuple[str, str]],
    accuracy: Mapping[tuple[str, str], float],
    aesthetics: Mapping[tuple[str, str], float],
    *,
    threshold: float,
) -> dict[tuple[str, str], float]:
    """The teacher's score of each (query, image_id): its aesthetics if rated accurate, else 0."""
    ratings = _ratings(pairs, accuracy, aesthetics)
    scores = np.where(ratings[:, 0] >= threshold, np.nan_to_num(ratings[:, 1]), 0.0)
    return dict(zip(pairs, scores, strict=True))


def _ratings(
    pairs: Sequence[tuple[str, str]],
    accuracy: Mapping[tuple[str, str], float],
    aesthetics: Mapping[tuple[str, str], float],
) -> np.ndarray:
    """Accuracy and aesthetics of each (query, image_id), float [N, 2]."""
    rated = [(accuracy[pair], aesthetics.get(pair, math.nan)) for pair in pairs]
    return np.array(rated, float).reshape(-1, 2)
