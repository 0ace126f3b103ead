"""What is asked of whom: the encoders answer from their tables, the teacher from the judge's verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cluster.errors import UserError
from cluster.profile import Profile
from cluster.tables import EncoderRecord, Store
from jobs.evaluate import hpir, language_models, teacher, trained_on
from jobs.evaluate.config import CHALLENGERS, DIVERSITY_K, EvaluateConfig
from jobs.evaluate.figures import metrics, per_query, winrate
from jobs.evaluate.inputs import Captions, VoteTable, load_captions, load_queries, load_votes
from jobs.evaluate.systems import Answers, EncoderSystem, embedded_ids

Duels = Mapping[str, list[winrate.Duel]]  # challenger -> its rank-matched pairs against the baseline


@dataclass(frozen=True)
class Asked:
    """What every system is asked."""

    queries: list[str]
    captions: Captions
    votes: list[VoteTable]
    pairs: list[VoteTable]
    truth: per_query.Truth | None
    gallery: frozenset[str]  # image_ids
    num_learned: int = 0  # queries that are not asked because alignment may have learned from them

    @property
    def voted(self) -> list[tuple[str, str]]:
        """Distinct (query, image_id) of all vote tables."""
        rows = [row for table in (*self.votes, *self.pairs) for row in table.rows]
        return list(dict.fromkeys((row.query, i) for row in rows for i in (*row.group_a, *row.group_b)))

    @property
    def labels(self) -> dict[str, str]:
        """image_id -> its subject, for zero-shot classification; empty where nobody knows."""
        latents = self.truth.latents if self.truth else {}
        return {image_id: scene.subject for image_id, scene in latents.items()}


def gather(
    config: EvaluateConfig, store: Store, records: Sequence[EncoderRecord], more: Sequence[EncoderRecord] = ()
) -> Asked:
    """Reads queries, captions, votes and truth.

    `records` have embedded the gallery; `more` are asked too, and only what they have learned counts.
    Raises UserError for anything missing or malformed.
    """
    gallery = common_gallery(store, records, config.where)
    known = trained_on.queries(store)
    queries, num_learned = load_queries(config, store, known)
    embedded = [embedded_ids(store, record.encoder) for record in records]
    votes, pairs = load_votes(config, store, set.intersection(*embedded), known)
    truth = None
    if config.truth:
        from lab.studio.truth import load_truth  # only the studio knows a truth

        truth = load_truth(config.truth)
    captions = load_captions(config, store, gallery, trained_on.captioned_images(store, [*records, *more]))
    return Asked(queries, captions, votes, pairs, truth, frozenset(gallery), num_learned)


def common_gallery(store: Store, records: Sequence[EncoderRecord], where: str) -> set[str]:
    """image_ids of the gallery. Raises UserError when it is empty, or not the same for every encoder."""
    galleries = [embedded_ids(store, record.encoder, where) for record in records]
    filtered = f" with --where {where!r}" if where else ""
    for record, gallery in zip(records, galleries, strict=True):
        if not gallery:
            raise UserError(
                f"encoder {record.encoder} has no images{filtered}: run `kallos index` or mend --where"
            )
        if gallery != galleries[0]:
            raise UserError(
                f"encoders {records[0].encoder} and {record.encoder} have different galleries{filtered} "
                f"({len(galleries[0])} and {len(gallery)} images): give --where what both have, or run "
                f"`kallos index --encoder {record.encoder}`"
            )
    return galleries[0]


def ask_encoder(system: EncoderSystem, asked: Asked) -> Answers:
    """Results, caption ranks, vote scores and zero-shot classes of one encoder."""
    similarities = system.similarities(asked.voted)
    votes = {table.name: hpir.group_means(table.rows, similarities) for table in (*asked.votes, *asked.pairs)}
    found = Answers(system.search(asked.queries, DIVERSITY_K), system.caption_ranks(asked.captions), votes)
    return replace(found, recognised=system.recognised(asked.labels)) if asked.labels else found


@dataclass(frozen=True)
class Candidates:
    """What the teacher retrieves before it judges: image_ids of each text, by the baseline."""

    texts: list[str]  # the queries, then the captions it answers
    lists: list[list[str]]
    rephrased: dict[str, str]
    num_failed: int


def retrieve_candidates(
    config: EvaluateConfig, profile: Profile, baseline: EncoderSystem, asked: Asked
) -> Candidates:
    """Rephrases and retrieves; nothing when the teacher is not asked for."""
    if not config.teacher:
        return Candidates([], [], {}, 0)
    texts = [*asked.queries, *asked.captions.texts[: config.num_teacher_captions]]
    rephrased, num_failed = language_models.rephrase(profile, texts)
    lists = baseline.search([rephrased[text] for text in texts], config.teacher_top_k)
    return Candidates(texts, lists, rephrased, num_failed)


def duels_of(answers: Mapping[str, Answers]) -> Duels:
    """The pairs of each challenger's rows and the baseline's that differ."""
    rows = answers["baseline"].rows
    present = [name for name in CHALLENGERS if name in answers]
    return {name: winrate.pairs_to_judge(answers[name].rows, rows) for name in present}


def gated_pairs(config: EvaluateConfig, asked: Asked, candidates: Candidates) -> list[tuple[str, str]]:
    """(query, image_id) whose accuracy the teacher has to know: its candidates, and what people voted on."""
    if not config.teacher:
        return []
    listed = zip(candidates.texts, candidates.lists, strict=True)
    return list(dict.fromkeys([*((text, i) for text, ids in listed for i in ids), *asked.voted]))


def questions(
    config: EvaluateConfig,
    asked: Asked,
    answers: Mapping[str, Answers],
    duels: Duels,
    gated: Sequence[tuple[str, str]],
    gate_by_judge: bool,
) -> language_models.Questions:
    """All that the judge is asked.

    For the teacher the beauty of what it has to order, and its accuracy unless the encoder tells that; for
    the win rate the row pairs, and ratings of what the rows show.
    """
    shown: list[tuple[str, str]] = []
    named: list[tuple[str, str, str]] = []
    if config.win_rate:
        rows = (zip(asked.queries, answer.rows, strict=True) for answer in answers.values())
        shown = [(query, i) for row in rows for query, ids in row for i in ids]
        named = [(asked.queries[q], a, b) for listed in duels.values() for q, _, a, b in listed]
    return language_models.Questions(
        images=[i for _, i in (*gated, *shown)],
        pairs=[*(gated if gate_by_judge else ()), *shown],
        duels=named if "ranker" in config.protocols else (),
        together=named if "cp_scorer" in config.protocols else (),
    )


def ask_teacher(
    asked: Asked,
    candidates: Candidates,
    accuracy: Mapping[tuple[str, str], float],
    aesthetics: Mapping[str, float],
    threshold: float,
) -> Answers:
    """The cascade's rows, caption ranks (of its captions) and vote scores, by those ratings."""
    judged = {"accuracy": accuracy, "aesthetics": aesthetics, "threshold": threshold}
    ranked = teacher.rank_candidates(candidates.texts, candidates.lists, **judged)
    num_queries = len(asked.queries)
    num_captions = len(candidates.texts) - num_queries
    own: list[set[str]] = [set() for _ in range(num_captions)]
    for image_id, caption in asked.captions.owners.items():
        if 0 <= caption < num_captions:
            own[caption].add(image_id)
    scores = teacher.pair_scores(asked.voted, **judged)
    return Answers(
        [ids[:DIVERSITY_K] for ids in ranked[:num_queries]],
        metrics.rank_in_lists(ranked[num_queries:], [frozenset(ids) for ids in own]),
        {table.name: hpir.group_means(table.rows, scores) for table in (*asked.votes, *asked.pairs)},
    )
