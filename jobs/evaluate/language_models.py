"""The judges of an evaluation, each in a Ray Data actor pool.

All questions to a judge go through one pool, so its engine starts once: beauty and accuracy once per
(query, image), preference once per pair or pair of rows (in both orders).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from PIL import Image

from actors.engine import check_model, make_engine, model_identity
from actors.judge import Comparison, Criterion, ImageCache, Judge, RatedCriterion, SheetCriterion
from actors.rephraser import MODEL_STYLES
from actors.stages import ENGINE_RESTARTS, add_stage, plain_errors
from cluster import session, terminal
from cluster.errors import JobFailure
from cluster.profile import LanguageModel, Profile, Stage
from cluster.tables import EncoderRecord, Store
from jobs.evaluate import trained_on
from jobs.evaluate.config import EvaluateConfig

RATE, COMPARE, TOGETHER, SHEET = "rate", "compare", "rate together", "sheet"
NUM_ANSWERS = {RATE: 1, COMPARE: 2, TOGETHER: 4, SHEET: 2}
TEXT, IMAGES = pa.string(), pa.list_(pa.string())
TASKS = pa.schema({"kind": TEXT, "criterion": TEXT, "query": TEXT, "images_a": IMAGES, "images_b": IMAGES})
Row = tuple[str, ...]  # image_ids of a row of results


@dataclass(frozen=True)
class JudgeQuestions:
    """All questions to a judge; duplicates are asked once."""

    aesthetics: Iterable[tuple[str, str]] = ()  # beauty of each (query, image_id)
    accuracy: Iterable[tuple[str, str]] = ()  # accuracy of each (query, image_id)
    comparisons: Iterable[tuple[Criterion, str, str, str]] = ()  # (criterion, query, image A, image B)
    together: Iterable[tuple[RatedCriterion, str, str, str]] = ()  # ratings of A and B, shown together
    sheets: Iterable[tuple[SheetCriterion, str, Row, Row]] = ()  # (criterion, query, row A, row B)

    def __or__(self, other: "JudgeQuestions") -> "JudgeQuestions":
        own = (one.name for one in fields(self))
        return JudgeQuestions(*((*getattr(self, name), *getattr(other, name)) for name in own))

    def tasks(self) -> pa.Table:
        """One row per question, grouped by kind and criterion; columns of `TASKS`, unused ones empty."""
        rows = [(RATE, "aesthetics", query, (image,), ()) for query, image in self.aesthetics]
        rows += [(RATE, "accuracy", query, (image,), ()) for query, image in self.accuracy]
        for kind, asked in ((COMPARE, self.comparisons), (TOGETHER, self.together)):
            rows += [(kind, criterion, query, (a,), (b,)) for criterion, query, a, b in asked]
        rows += [(SHEET, *asked) for asked in self.sheets]
        distinct = sorted(dict.fromkeys(rows), key=lambda row: row[:2])
        return pa.Table.from_pylist([dict(zip(TASKS.names, row, strict=True)) for row in distinct], TASKS)


@dataclass(frozen=True)
class Judgements:
    """A judge's answers; NaN where it gave none.

    aesthetics, accuracy: (query, image_id) -> [1, 5].
    compared: (criterion, query, A, B) -> (P(A better | A first), P(A better | B first)), each in [0, 1].
    together: (criterion, query, A, B) -> float [2, 2] in [1, 5]: rows with A first and B first, columns A, B.
    sheets: (criterion, query, row A, row B) -> as `compared`, with the first row above the second.
    errors: why questions have no answer.
    """

    aesthetics: dict[tuple[str, str], float] = field(default_factory=dict)
    accuracy: dict[tuple[str, str], float] = field(default_factory=dict)
    compared: dict[tuple[str, str, str, str], tuple[float, float]] = field(default_factory=dict)
    together: dict[tuple[str, str, str, str], np.ndarray] = field(default_factory=dict)
    sheets: dict[tuple[str, str, Row, Row], tuple[float, float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def num_answers(self) -> int:
        """Number of questions that were asked, each of which has an entry."""
        kinds = (self.aesthetics, self.accuracy, self.compared, self.together, self.sheets)
        return sum(map(len, kinds))

    @property
    def num_unanswered(self) -> int:
        ratings = [*self.aesthetics.values(), *self.accuracy.values()]
        of_pairs = [*self.compared.values(), *self.together.values(), *self.sheets.values()]
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
        answers: list[list[float]] = []
        errors: list[str] = []
        for (kind, criterion), group in groupby(rows, lambda row: (row["kind"], row["criterion"])):
            found, faults = self._answer(kind, criterion, list(group))
            answers += found
            errors += faults
        batch = batch.append_column("answer", pa.array(answers, pa.list_(pa.float64())))
        return batch.append_column("error", pa.array(errors, pa.string()))

    def _answer(self, kind: str, criterion: str, rows: Sequence[dict]) -> tuple[list[list[float]], list[str]]:
        """Answers to questions of one kind, and errors; those about unreadable images are not asked."""
        ids = [image_id for row in rows for image_id in (*row["images_a"], *row["images_b"])]
        images = dict(zip(ids, self.images.load(ids), strict=True))
        unreadable = [
            next((i for i in (*row["images_a"], *row["images_b"]) if images[i] is None), None) for row in rows
        ]
        asked = [row for row, fault in zip(rows, unreadable, strict=True) if fault is None]
        found = iter(self._ask(kind, criterion, asked, images).tolist() if asked else [])
        answers, errors = [], []
        for fault in unreadable:
            answer = next(found) if fault is None else [math.nan] * NUM_ANSWERS[kind]
            unanswered = self.judge.first_error if np.isnan(answer).any() else ""
            answers.append(answer)
            errors.append(unanswered if fault is None else self.images.faults[fault])
        return answers, errors

    def _ask(self, kind: str, criterion: Any, rows: Sequence[dict], images: Mapping[str, Any]) -> np.ndarray:
        """Answers to questions of one kind, float [len(rows), 1, 2 or 4]."""
        queries = [row["query"] for row in rows]
        rows_a, rows_b = ([[images[i] for i in row[of]] for row in rows] for of in ("images_a", "images_b"))
        if kind == SHEET:
            return _orders(self.judge.compare_rows(criterion, queries, rows_a, rows_b))
        first: list[Image.Image] = [row[0] for row in rows_a]
        if kind == RATE:
            accuracy = criterion == "accuracy"
            rated = self.judge.accuracy(queries, first) if accuracy else self.judge.aesthetics(first)
            return rated[:, None]
        second: list[Image.Image] = [row[0] for row in rows_b]
        if kind == COMPARE:
            return _orders(self.judge.compare(criterion, queries, first, second))
        return self.judge.rate_together(criterion, queries, first, second).reshape(len(rows), 4)


def _orders(compared: Comparison) -> np.ndarray:
    """P(A better) in either order, float [N, 2]."""
    return np.stack([compared.p_ab, compared.p_ba], axis=1)


def scoring_judge(config: EvaluateConfig, profile: Profile) -> LanguageModel:
    """The judge that compares and rates the results: the one named by --judge, else the profile's."""
    return profile.judge.model_copy(update={"model": config.judge}) if config.judge else profile.judge


@dataclass(frozen=True)
class JudgeNames:
    """Who judged what, by names as in the column `judge` of `preferences`.

    teacher: the teacher's judge, scoring: the one that compares and rates the results, "" if not asked.
    labelled: the judges of the preferences that the aligned encoders trained on.
    """

    teacher: str
    scoring: str
    labelled: tuple[str, ...]

    @property
    def warning(self) -> str:
        """What is wrong if the judge that scores also labelled, "" if it did not."""
        if not self.scoring or all(_hash(self.scoring) != _hash(name) for name in self.labelled):
            return ""
        return (
            f"the judge that scores, {self.scoring}, also labelled the preferences that alignment trained "
            "on, so its win rate favours the aligned encoder: name another with --judge, or rely on people's "
            "votes (--hpir, --pairs)"
        )


def _hash(name: str) -> str:
    """What identifies a model: the hash of a folder's files, or its name on the hub."""
    return name.rpartition("@")[2]


def judge_names(
    config: EvaluateConfig, profile: Profile, store: Store, records: Sequence[EncoderRecord]
) -> JudgeNames:
    """The judges of an evaluation, and those from which the encoders in `records` learned."""
    return JudgeNames(
        model_identity(profile.judge) if config.teacher else "",
        model_identity(scoring_judge(config, profile)) if config.win_rate else "",
        tuple(sorted(trained_on.judges(store, records))),
    )


def check_models(config: EvaluateConfig, profile: Profile) -> None:
    """Refuse unusable models of the teacher and the judges before any work. Raises UserError."""
    on_hub = profile.ray.address == "local"  # elsewhere, the machines of the actors have to find it
    if config.teacher and profile.label.style in MODEL_STYLES:
        check_model(profile.rephraser, on_hub=on_hub)
    if config.teacher:
        check_model(profile.judge, on_hub=on_hub)
    if config.win_rate:
        check_model(scoring_judge(config, profile), on_hub=on_hub)


def ask_judge(profile: Profile, store: Store, model: LanguageModel, questions: JudgeQuestions) -> Judgements:
    """Ask a judge all questions in one actor pool; without questions no pool is started.

    Raises:
        UserError: the cluster is too small for the judge.
        JobFailure: the judge answered nothing.
    """
    tasks = questions.tasks()
    if not tasks.num_rows:
        return Judgements()
    arguments = {"store": store, "model": model}
    found = judgements_from(map_table(profile, AnswerTasks, tasks, model.stage, arguments))
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
    rated = {"aesthetics": found.aesthetics, "accuracy": found.accuracy}
    for row in answered.to_pylist():
        criterion, query, answer = row["criterion"], row["query"], row["answer"]
        rows = tuple(row["images_a"]), tuple(row["images_b"])
        images = [image_id for one in rows for image_id in one]
        if row["error"]:
            found.errors.append(row["error"])
        if row["kind"] == RATE:
            rated[criterion][query, images[0]] = answer[0]
        elif row["kind"] == COMPARE:
            found.compared[criterion, query, images[0], images[1]] = tuple(answer)
        elif row["kind"] == TOGETHER:
            found.together[criterion, query, images[0], images[1]] = np.array(answer).reshape(2, 2)
        else:
            found.sheets[criterion, query, *rows] = tuple(answer)
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
