"""Stages of a pipeline: the options passed to Ray Data, and user errors inside actors."""

import pyarrow as pa
import pytest
from ray.exceptions import RayError, RayTaskError

from actors.stages import MAX_RESTARTS, add_stage, plain_errors
from cluster.errors import JobFailure, UserError
from cluster.profile import Stage
from jobs.evaluate import language_models


class Rows:
    """A dataset that records the options of `map_batches`, and raises `error` when it is read."""

    def __init__(self, error: Exception | None = None):
        self.error = error

    def map_batches(self, actor, **options):
        self.options = options
        return self

    def to_arrow_refs(self):
        raise self.error


def test_stage_passes_its_resources_and_a_limit_of_restarts():
    rows = Rows()
    add_stage(rows, object, {"a": 1}, Stage(batch_size=7, num_gpus=0.5), batch_format="numpy")
    assert rows.options["batch_size"] == 7 and rows.options["batch_format"] == "numpy"
    assert rows.options["num_gpus"] == 0.5
    assert rows.options["max_restarts"] == MAX_RESTARTS > 0


@pytest.mark.parametrize(
    ("cause", "raised"), [(UserError("no such model"), UserError), (OSError("a disk"), RayTaskError)]
)
def test_evaluation_raises_the_user_error_inside_an_actor(monkeypatch, mini_profile, cause, raised):
    rows = Rows(RayTaskError("ask", "traceback from Ray", cause))
    monkeypatch.setattr(language_models.session, "connect", lambda profile: None)
    monkeypatch.setattr(language_models.session, "require", lambda stages: None)
    monkeypatch.setattr(language_models.ray.data, "from_arrow", lambda table, **options: rows)
    with pytest.raises(raised) as caught:
        language_models.map_table(mini_profile, object, pa.table({"query": ["a"]}), Stage(), {}, "numpy")
    if raised is UserError:
        assert str(caught.value) == "no such model"


class Died(RayError):
    """What Ray raises for an actor whose constructor raised: it keeps the error as text only."""

    def __str__(self) -> str:
        return (
            "The actor died because of an error raised in its creation task, \x1b[36mray::Rerank\x1b[39m"
            '\n  File "actors/engine.py", line 320\nsafetensors.SafetensorError: header too large\n\n'
            "The above exception was the direct cause of the following exception:\n\n"
            "cluster.errors.UserError: The engine cannot load the model 'judge': header too large.\n"
        )


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (Died(), UserError, "The engine cannot load the model 'judge': header too large."),
        (
            RayTaskError("ask", "its traceback", JobFailure("It died 4 times.")),
            JobFailure,
            "It died 4 times.",
        ),
    ],
)
def test_sentence_inside_a_ray_error_is_raised_and_the_rest_goes_to_the_log(capsys, error, kind, sentence):
    with pytest.raises(kind) as caught, plain_errors():
        raise error
    assert type(caught.value) is kind and str(caught.value) == sentence
    assert "Traceback" in capsys.readouterr().err


def test_other_errors_of_ray_stay_as_they_are():
    with pytest.raises(RayError), plain_errors():
        raise RayError("the cluster is gone")
