"""Language-model work of an evaluation, in Ray Data actor pools: rephrase texts, ask the judge.

All questions to the judge go through one pool, so its engine starts once: beauty once per image, accuracy
once per (query, image), preference once per pair (both orders).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError

from actors.engine import make_engine, model_path
from actors.images import STORED
from actors.judge import Judge, stored_images
from actors.pool import through, user_error_in
from actors.rephraser import Rephrase
from cluster import session
from cluster.profile import LanguageModel, Profile, Stage
from cluster.tables import Store
from jobs.evaluate.systems import rows_of

AESTHETICS, ACCURACY, OVERALL = "aesthetics", "accuracy", "overall"
TOGETHER = {"accuracy": "accuracy together", "aesthetics": "aesthetics together"}
KINDS = (AESTHETICS, ACCURACY, OVERALL, *TOGETHER.values())
TASKS = pa.schema({name: pa.string() for name in ("kind", "query", "image_a", "image_b")})


@dataclass(frozen=True)
class Questions:
    """Everything the judge is asked; whatever is asked twice is asked once."""

    images: Iterable[str] = ()  # beauty of each image_id
    pairs: Iterable[tuple[str, str]] = ()  # accuracy of each (query, image_id)
    duels: Iterable[tuple[str, str, str]] = ()  # preference between (query, image A, image B)
    together: Iterable[tuple[str, str, str]] = ()  # accuracy and beauty of both, seen together

    def tasks(self) -> pa.Table:
        """One row a question, those of a kind together; columns of `TASKS`, unused ones empty."""
        rows = [(AESTHETICS, "", image, "") for image in dict.fromkeys(self.images)]
        rows += [(ACCURACY, query, image, "") for query, image in dict.fromkeys(self.pairs)]
        rows += [(OVERALL, query, a, b) for query, a, b in dict.fromkeys(self.duels)]
        for kind in TOGETHER.values():
            rows += [(kind, query, a, b) for query, a, b in dict.fromkeys(self.together)]
        return pa.Table.from_pylist([dict(zip(TASKS.names, row, strict=True)) for row in rows], TASKS)


@dataclass(frozen=True)
class Verdicts:
    """The judge's answers; NaN where it gave none.

    aesthetics: image_id -> [1, 5]. accuracy: (query, image_id) -> [1, 5].
    overall: (query, A, B) -> (P(A better | A first), P(A better | B first)), each in [0, 1].
    together: (criterion, query, A, B) -> float [2, 2] in [1, 5]: with A first and B first, of A and of B.
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

    A rating is one number in [1, 5]; a preference is P(A better) with A shown first and with B shown first;
    ratings of two images seen together are those of A and B with A first, then with B first.
    """

    def __init__(self, *, store: Store, model: LanguageModel) -> None:
        self.store = store
        self.judge = Judge(make_engine(model), model.image_px)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        ids = {row[side] for row in rows for side in ("image_a", "image_b")} - {""}
        images = stored_images(rows_of(self.store, "images", STORED, ids), self.judge.image_px)
        answers: dict[int, list[float]] = {}
        for kind in KINDS:
            chosen = [i for i, row in enumerate(rows) if row["kind"] == kind]
            if chosen:
                found = self._ask(kind, [rows[i] for i in chosen], images)
                answers |= zip(chosen, found.tolist(), strict=True)
        column = pa.array([answers[i] for i in range(len(rows))], pa.list_(pa.float64()))
        return batch.append_column("answer", column)

    def _ask(self, kind: str, rows: Sequence[dict], images: dict) -> np.ndarray:
        """Answers of rows of one kind, float [len(rows), 1, 2 or 4]."""
        queries = [row["query"] for row in rows]
        shown = [images[row["image_a"]] for row in rows]
        if kind == AESTHETICS:
            return self.judge.aesthetics(shown)[:, None]
        if kind == ACCURACY:
            return self.judge.accuracy(queries, shown)[:, None]
        beside = [images[row["image_b"]] for row in rows]
        if kind == OVERALL:
            compared = self.judge.compare("overall", queries, shown, beside)
            return np.stack([compared.p_ab, compared.p_ba], axis=1)
        criterion = next(name for name, named in TOGETHER.items() if named == kind)
        return self.judge.rate_together(criterion, queries, shown, beside).reshape(len(rows), 4)


def ask_judge(profile: Profile, store: Store, questions: Questions) -> Verdicts:
    """Asks everything in one actor pool; no questions start nothing.

    Raises UserError when the judge's model is not there or the cluster can never hold it.
    """
    tasks = questions.tasks()
    if not tasks.num_rows:
        return Verdicts()
    model_path(profile.judge.model)  # a missing model is told here, not from inside an actor
    arguments = {"store": store, "model": profile.judge}
    return verdicts(through_pool(profile, AnswerTasks, tasks, profile.judge.stage, arguments, "pyarrow"))


def verdicts(answered: pa.Table) -> Verdicts:
    """Sorts answered tasks (columns of `TASKS`, `answer`) into lookups."""
    found, criteria = Verdicts(), {kind: criterion for criterion, kind in TOGETHER.items()}
    for row in answered.to_pylist():
        pair = (row["query"], row["image_a"], row["image_b"])
        if row["kind"] == AESTHETICS:
            found.aesthetics[row["image_a"]] = row["answer"][0]
        elif row["kind"] == ACCURACY:
            found.accuracy[pair[:2]] = row["answer"][0]
        elif row["kind"] == OVERALL:
            found.overall[pair] = tuple(row["answer"])
        else:
            found.together[criteria[row["kind"]], *pair] = np.array(row["answer"]).reshape(2, 2)
    return found


def rephrase(profile: Profile, texts: Sequence[str]) -> tuple[dict[str, str], int]:
    """text -> rephrased text in the profile's style, and how many could not be rephrased.

    Such a text stands for itself: the teacher then retrieves with the plain query.
    """
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        return {}, 0
    arguments = {"language_model": profile.rephraser, "style": profile.label.style}
    table = pa.table({"query": distinct})
    rows = through_pool(profile, Rephrase, table, profile.rephraser.stage, arguments, "numpy").to_pylist()
    failed = sum(bool(row["rephrase_error"]) for row in rows)
    return {row["query"]: row["rephrased"] or row["query"] for row in rows}, failed


def through_pool(
    profile: Profile, actor: type, table: pa.Table, stage: Stage, arguments: dict, batch_format: str
) -> pa.Table:
    """The table through a pool of `actor`, whose stage says how many and how large; rows in any order.

    Raises UserError when the cluster can never hold the pool, and for the user's mistake inside an actor.
    """
    session.connect(profile)
    session.require({actor.__name__: stage})
    num_blocks = math.ceil(table.num_rows / stage.batch_size)
    rows = ray.data.from_arrow(table, override_num_blocks=num_blocks)
    try:
        done = through(rows, actor, arguments, stage, batch_format=batch_format)
        return pa.concat_tables(ray.get(done.to_arrow_refs()))
    except RayError as error:
        raise user_error_in(error) or error from None
