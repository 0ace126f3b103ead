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

from actors.engine import check_model, make_engine
from actors.judge import ImageCache, Judge
from actors.rephraser import MODEL_STYLES
from actors.stages import ENGINE_RESTARTS, add_stage, plain_errors
from cluster import session, terminal
from cluster.errors import JobFailure
from cluster.profile import LanguageModel, Profile, Stage
from cluster.tables import Store
from jobs.evaluate.config import EvaluateConfig

AESTHETICS, ACCURACY, OVERALL = "aesthetics", "accuracy", "overall"
# Kinds of question about two images that are shown together -> what is rated.
CRITERIA: dict[str, Literal["accuracy", "aesthetics"]] = {
    "accuracy together": "accuracy",
    "aesthetics together": "aesthetics",
}
KINDS = (AESTHETICS, ACCURACY, OVERALL, *CRITERIA)
NUM_ANSWERS = {AESTHETICS: 1, ACCURACY: 1, OVERALL: 2} | dict.fromkeys(CRITERIA, 4)
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
    errors: why questions have no answer.
    """

    aesthetics: dict[str, float] = field(default_factory=dict)
    accuracy: dict[tuple[str, str], float] = field(default_factory=dict)
    overall: dict[tuple[str, str, str], tuple[float, float]] = field(default_factory=dict)
    together: dict[tuple[str, str, str, str], np.ndarray] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def num_unanswered(self) -> int:
        ratings = [*self.aesthetics.values(), *self.accuracy.values()]
        of_pairs = [*self.overall.values(), *self.together.values()]
        return sum(map(math.isnan, ratings)) + sum(bool(np.isnan(p).any()) for p in of_pairs)


class AnswerTasks:
    """Ray Data actor, `batch_format="pyarrow"`: rows of `TASKS` -> adds `answer` and `error`.

    An answer is a list of float64. A rating is one number in [1, 5]. A preference is P(A better) with A shown
    first and with B shown first. Ratings of two images shown together are those of A and B with A first, then
    with B first. Where an answer has a NaN, the error says why.
    """

    def __init__(self, *, store: Store, model: LanguageModel) -> None:
        self.judge = Judge(make_engine(model), model.image_px)
        self.images = ImageCache(store, model.image_px)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        answers: dict[int, list[float]] = {}
        errors: dict[int, str] = {}
        for kind in KINDS:
            chosen = [index for index, row in enumerate(rows) if row["kind"] == kind]
            if chosen:
                found, faults = self._answer(kind, [rows[index] for index in chosen])
                answers |= zip(chosen, found, strict=True)
                errors |= zip(chosen, faults, strict=True)
        column = pa.array([answers[index] for index in range(len(rows))], pa.list_(pa.float64()))
        batch = batch.append_column("answer", column)
        return batch.append_column("error", pa.array([errors[i] for i in range(len(rows))], pa.string()))

    def _answer(self, kind: str, rows: Sequence[dict]) -> tuple[list[list[float]], list[str]]:
        """Answers to questions of one kind, and errors; those about unreadable images are not asked."""
        ids = [image_id for row in rows for image_id in (row["image_a"], row["image_b"]) if image_id]
        images = dict(zip(ids, self.images.load(ids), strict=True))
        unreadable = {image_id for image_id, image in images.items() if image is None}
        asked = [row for row in rows if not unreadable & {row["image_a"], row["image_b"]}]
        found = iter(self._ask(kind, asked, images).tolist() if asked else [])
        answers, errors = [], []
        for row in rows:
            faults = [self.images.faults[i] for i in (row["image_a"], row["image_b"]) if i in unreadable]
            answer = [math.nan] * NUM_ANSWERS[kind] if faults else next(found)
            answers.append(answer)
            errors.append(faults[0] if faults else self.judge.first_error if np.isnan(answer).any() else "")
        return answers, errors

    def _ask(self, kind: str, rows: Sequence[dict], images: Mapping[str, Any]) -> np.ndarray:
        """Answers to questions of one kind, float [len(rows), 1, 2 or 4]."""
        queries = [row["query"] for row in rows]
        images_a = [images[row["image_a"]] for row in rows]
        if kind == AESTHETICS:
            return self.judge.aesthetics(images_a)[:, None]
        if kind == ACCURACY:
            return self.judge.accuracy(queries, images_a)[:, None]
        images_b = [images[row["image_b"]] for row in rows]
        if kind == OVERALL:
            compared = self.judge.compare("overall", queries, images_a, images_b)
            return np.stack([compared.p_ab, compared.p_ba], axis=1)
        return self.judge.rate_together(CRITERIA[kind], queries, images_a, images_b).reshape(len(rows), 4)


def check_models(config: EvaluateConfig, profile: Profile) -> None:
    """Refuse unusable models of the teacher and the judge before any work. Raises UserError."""
    on_hub = profile.ray.address == "local"  # elsewhere, the machines of the actors have to find it
    if config.teacher and profile.label.style in MODEL_STYLES:
        check_model(profile.rephraser, on_hub=on_hub)
    if config.teacher or config.win_rate:
        check_model(profile.judge, on_hub=on_hub)


def ask_judge(profile: Profile, store: Store, questions: JudgeQuestions) -> Judgements:
    """Ask all questions in one actor pool; without questions no pool is started.

    Raises:
        UserError: the cluster is too small for the judge.
        JobFailure: the judge answered nothing.
    """
    tasks = questions.tasks()
    if not tasks.num_rows:
        return Judgements()
    arguments = {"store": store, "model": profile.judge}
    found = judgements_from(map_table(profile, AnswerTasks, tasks, profile.judge.stage, arguments))
    refuse_if_all_failed(
        "questions answered by the judge", tasks.num_rows, found.num_unanswered, found.errors
    )
    return found


def refuse_if_all_failed(what: str, num_all: int, num_failed: int, errors: Sequence[str]) -> None:
    """Say how many failed and why the first did. Raises JobFailure if all did: there is nothing to report."""
    counts = f"{num_all - num_failed} of {num_all} {what}"
    reason = f", the first failure is: {errors[0]}" if errors else ""
    if num_failed == num_all > 0:
        raise JobFailure(f"{counts}{reason}.")
    if num_failed:
        terminal.say(f"evaluate: {counts}{reason}")


def judgements_from(answered: pa.Table) -> Judgements:
    """Look-ups from answered tasks (columns of `TASKS`, `answer`, `error`)."""
    found = Judgements()
    for row in answered.to_pylist():
        pair = (row["query"], row["image_a"], row["image_b"])
        if row["error"]:
            found.errors.append(row["error"])
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
