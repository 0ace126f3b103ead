"""The judge of an evaluation, in a Ray Data actor pool.

All questions to the judge go through one pool, so its engine starts once: beauty once per image, accuracy
once per (query, image), preference once per pair (in both orders).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import ray
import ray.data

from actors.engine import make_engine, model_path
from actors.judge import ImageCache, Judge
from actors.stages import ENGINE_RESTARTS, add_stage, plain_errors
from cluster import session
from cluster.profile import LanguageModel, Profile, Stage
from cluster.tables import Store

AESTHETICS, ACCURACY, OVERALL = "aesthetics", "accuracy", "overall"
# Kinds of question about two images that are shown together -> what is rated.
CRITERIA: dict[str, Literal["accuracy", "aesthetics"]] = {
    "accuracy together": "accuracy",
    "aesthetics together": "aesthetics",
}
KINDS = (AESTHETICS, ACCURACY, OVERALL, *CRITERIA)
TASKS = pa.schema({name: pa.string() for name in ("kind", "query", "image_a", "image_b")})


@dataclass(frozen=True)
class JudgeQuestions:
    """All questions to the judge; duplicates are asked once."""

    images: Iterable[str] = ()  # beauty of each image_id
    pairs: Iterable[tuple[str, str]] = ()  # accuracy of each (query, image_id)
    comparisons: Iterable[tuple[str, str, str]] = ()  # preference between (query, image A, image B)
    together: Iterable[tuple[str, str, str]] = ()  # accuracy and beauty of A and B, shown together

    def tasks(self) -> pa.Table:
        """One row per question, grouped by kind; columns of `TASKS`, unused ones empty."""
        rows = [(AESTHETICS, "", image, "") for image in dict.fromkeys(self.images)]
        rows += [(ACCURACY, query, image, "") for query, image in dict.fromkeys(self.pairs)]
        rows += [(OVERALL, query, a, b) for query, a, b in dict.fromkeys(self.comparisons)]
        for kind in CRITERIA:
            rows += [(kind, query, a, b) for query, a, b in dict.fromkeys(self.together)]
        return pa.Table.from_pylist([dict(zip(TASKS.names, row, strict=True)) for row in rows], TASKS)


@dataclass(frozen=True)
class Judgements:
    """The judge's answers; NaN where it gave none.

    aesthetics: image_id -> [1, 5]. accuracy: (query, image_id) -> [1, 5].
    overall: (query, A, B) -> (P(A better | A first), P(A better | B first)), each in [0, 1].
    together: (criterion, query, A, B) -> float [2, 2] in [1, 5]: rows with A first and B first, columns A, B.
    """

    aesthetics: dict[str, float] = field(default_factory=dict)
    accuracy: dict[tuple[str, str], float] = field(default_factory=dict)
    overall: dict[tuple[str, str, str], tuple[float, float]] = field(default_factory=dict)
    together: dict[tuple[str, str, str, str], np.ndarray] = field(default_factory=dict)

    @property
    def num_unanswered(self) -> int:
        ratings = [*self.aesthetics.values(), *self.accuracy.values()]
        of_pairs = [*self.overall.values(), *self.together.values()]
        return sum(map(math.isnan, ratings)) + sum(bool(np.isnan(p).any()) for p in of_pairs)


class AnswerTasks:
    """Ray Data actor, `batch_format="pyarrow"`: rows of `TASKS` -> adds `answer`, a list of float64.

    A rating is one number in [1, 5]. A preference is P(A better) with A shown first and with B shown first.
    Ratings of two images shown together are those of A and B with A first, then with B first.
    """

    def __init__(self, *, store: Store, model: LanguageModel) -> None:
        self.judge = Judge(make_engine(model), model.image_px)
        self.images = ImageCache(store, model.image_px)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        answers: dict[int, list[float]] = {}
        for kind in KINDS:
            chosen = [index for index, row in enumerate(rows) if row["kind"] == kind]
            if chosen:
                found = self._ask(kind, [rows[index] for index in chosen])
                answers |= zip(chosen, found.tolist(), strict=True)
        column = pa.array([answers[index] for index in range(len(rows))], pa.list_(pa.float64()))
        return batch.append_column("answer", column)

    def _ask(self, kind: str, rows: Sequence[dict]) -> np.ndarray:
        """Answers to questions of one kind, float [len(rows), 1, 2 or 4]."""
        queries, ids_a, ids_b = ([row[name] for row in rows] for name in ("query", "image_a", "image_b"))
        images_a = self.images.load(ids_a)
        if kind == AESTHETICS:
            return self.judge.aesthetics(images_a)[:, None]
        if kind == ACCURACY:
            return self.judge.accuracy(queries, images_a)[:, None]
        images_b = self.images.load(ids_b)
        if kind == OVERALL:
            compared = self.judge.compare("overall", queries, images_a, images_b)
            return np.stack([compared.p_ab, compared.p_ba], axis=1)
        return self.judge.rate_together(CRITERIA[kind], queries, images_a, images_b).reshape(len(rows), 4)


def ask_judge(profile: Profile, store: Store, questions: JudgeQuestions) -> Judgements:
    """Ask all questions in one actor pool; without questions no pool is started.

    Raises UserError when the judge's model is missing or the cluster is too small for it.
    """
    tasks = questions.tasks()
    if not tasks.num_rows:
        return Judgements()
    model_path(profile.judge.model)  # refuse a missing model before an actor starts
    arguments = {"store": store, "model": profile.judge}
    return judgements_from(map_table(profile, AnswerTasks, tasks, profile.judge.stage, arguments))


def judgements_from(answered: pa.Table) -> Judgements:
    """Look-ups from answered tasks (columns of `TASKS`, `answer`)."""
    found = Judgements()
    for row in answered.to_pylist():
        pair = (row["query"], row["image_a"], row["image_b"])
        if row["kind"] == AESTHETICS:
            found.aesthetics[row["image_a"]] = row["answer"][0]
        elif row["kind"] == ACCURACY:
            found.accuracy[pair[:2]] = row["answer"][0]
        elif row["kind"] == OVERALL:
            found.overall[pair] = tuple(row["answer"])
        else:
            found.together[CRITERIA[row["kind"]], *pair] = np.array(row["answer"]).reshape(2, 2)
    return found


def map_table(
    profile: Profile,
    actor: type,
    table: pa.Table,
    stage: Stage,
    arguments: dict,
    batch_format: str = "pyarrow",
) -> pa.Table:
    """Map the table over a pool of `actor`, sized by its stage; rows come back in any order.

    Raises UserError when the cluster is too small for the pool, or an actor raises one.
    """

    def build() -> ray.data.Dataset:
        num_blocks = math.ceil(table.num_rows / stage.batch_size)
        rows = ray.data.from_arrow(table, override_num_blocks=num_blocks)
        return add_stage(
            rows, actor, arguments, stage, batch_format=batch_format, max_restarts=ENGINE_RESTARTS
        )

    return collect(profile, {actor.__name__: stage}, build)


def collect(profile: Profile, stages: Mapping[str, Stage], build: Callable[[], ray.data.Dataset]) -> pa.Table:
    """Run a pipeline of those stages and return its rows.

    Raises UserError when the cluster is too small for the stages, or an actor raises one.
    """
    session.connect(profile)
    session.require(stages)
    with plain_errors():
        blocks: Any = build().to_arrow_refs()  # `ray.get` has no type for references to tables
        return pa.concat_tables(ray.get(blocks))
