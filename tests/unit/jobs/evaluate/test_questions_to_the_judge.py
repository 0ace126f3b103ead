"""Questions about images that cannot be read, and an evaluation in which nothing was answered."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from actors.engine import Reply
from actors.judge import DIGITS
from cluster.errors import JobFailure
from cluster.profile import LanguageModel, Stage
from cluster.tables import SCHEMAS, now
from jobs.evaluate import language_models
from jobs.evaluate.page.render import thumbnail
from jobs.evaluate.systems import diversity

MODEL = LanguageModel(model="none/none", max_tokens=1, image_px=16, stage=Stage())


class UniformEngine:
    """Gives every answer the same probability, and counts the requests."""

    num_requests = 0

    def generate(self, requests):
        self.num_requests += len(requests)
        return [
            Reply(choice_probs={choice: 1 / len(request.choices) for choice in request.choices})
            for request in requests
        ]


@pytest.fixture
def tasks_on(store, monkeypatch):
    """`AnswerTasks` on a store with the images a and b, and c, whose preview is damaged."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, "JPEG")
    about = dict.fromkeys(SCHEMAS["images"].names, "") | {"tags": [], "added_at": now()}
    previews = {"a": file.getvalue(), "b": file.getvalue(), "c": file.getvalue()[:40]}
    rows = [
        about | {"image_id": image_id, "preview": preview, "width_px": 32, "height_px": 32}
        for image_id, preview in previews.items()
    ]
    store.merge("images", pa.Table.from_pylist(rows, SCHEMAS["images"]), on=["image_id"])
    engine = UniformEngine()
    monkeypatch.setattr(language_models, "make_engine", lambda model: engine)
    return language_models.AnswerTasks(store=store, model=MODEL), engine


def test_questions_about_unreadable_images_get_an_error_and_the_others_an_answer(tasks_on):
    actor, engine = tasks_on
    pairs = [("overall", "q", *pair) for pair in (("a", "b"), ("a", "c"), ("gone", "b"))]
    rows = [("diversity", "q", ("a", "b"), ("b",)), ("diversity", "q", ("a", "b"), ("a", "c"))]
    rated = [("q", "a"), ("q", "c"), ("q", "gone")]
    together = [("accuracy", *pair[1:]) for pair in pairs]
    questions = language_models.JudgeQuestions(rated, rated[:2], pairs, together, rows)
    for row in actor(questions.tasks()).to_pylist():
        fault = {"c", "gone"} & {*row["images_a"], *row["images_b"]}
        assert len(row["answer"]) == language_models.NUM_ANSWERS[row["kind"]]
        assert np.isnan(row["answer"]).all() if fault else not np.isnan(row["answer"]).any()
        assert all(f"image {image_id} " in row["error"] for image_id in fault) and bool(row["error"]) == bool(
            fault
        )
    assert engine.num_requests == 1 + 1 + 2 + 4 + 2  # one of each kind, of two images or rows in both orders


def test_error_of_the_judge_is_kept(tasks_on, monkeypatch):
    actor, engine = tasks_on
    refused = [Reply(error="text only"), Reply(choice_probs=dict.fromkeys(DIGITS, 0.2))]
    monkeypatch.setattr(engine, "generate", lambda requests: refused[: len(requests)])
    rows = actor(language_models.JudgeQuestions([("q", "a"), ("q", "b")]).tasks()).to_pylist()
    assert [row["error"] for row in rows] == ["text only", ""]


def test_evaluation_fails_when_nothing_was_answered_and_says_how_much_was_not(capsys):
    refuse = language_models.refuse_if_all_failed
    with pytest.raises(JobFailure, match=r"0 of 3 answers, the first failure is: text only\.$"):
        refuse("answers", 3, 3, ["text only", "another"])
    refuse("answers", 3, 1, ["text only"])
    refuse("answers", 0, 0, [])
    assert capsys.readouterr().err == "evaluate: 2 of 3 answers, the first failure is: text only\n"


def test_image_without_vector_or_preview_is_left_out_of_the_report():
    vectors = {"a": np.array([1.0, 0.0]), "b": np.array([0.0, 1.0])}
    assert diversity([["a", "gone", "b"], ["gone"]], vectors).tolist() == pytest.approx([2.0, 0.0])
    assert thumbnail(b"no image", 96) == ""
