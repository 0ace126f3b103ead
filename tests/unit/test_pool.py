"""Pools of engines: the options that Ray Data is given, and the user's mistakes inside actors."""

import pyarrow as pa
import pytest
from ray.exceptions import RayTaskError

from actors import pool
from actors.engine import ENGINE_ACTOR
from cluster.errors import UserError
from cluster.profile import Stage
from jobs.evaluate import language_models


class Rows:
    """A dataset that notes how it is mapped, and fails with `error` when it is read."""

    def __init__(self, error: Exception | None = None):
        self.error = error

    def map_batches(self, actor, **options):
        self.options = options
        return self

    def to_arrow_refs(self):
        raise self.error


def test_a_broken_engine_is_not_started_for_ever():
    rows = Rows()
    pool.through(rows, object, {"a": 1}, Stage(batch_size=7), batch_format="numpy")
    assert rows.options["batch_size"] == 7 and rows.options["batch_format"] == "numpy"
    assert ENGINE_ACTOR.items() <= rows.options.items() and ENGINE_ACTOR["max_restarts"] > 0


@pytest.mark.parametrize(
    ("cause", "raised"), [(UserError("no such model"), UserError), (OSError("a disk"), RayTaskError)]
)
def test_an_evaluation_tells_the_users_mistake_inside_an_actor(monkeypatch, mini_profile, cause, raised):
    rows = Rows(RayTaskError("ask", "told by Ray", cause))
    monkeypatch.setattr(language_models.session, "connect", lambda profile: None)
    monkeypatch.setattr(language_models.session, "require", lambda stages: None)
    monkeypatch.setattr(language_models.ray.data, "from_arrow", lambda table, **options: rows)
    with pytest.raises(raised) as caught:
        language_models.through_pool(mini_profile, object, pa.table({"query": ["a"]}), Stage(), {}, "numpy")
    if raised is UserError:
        assert str(caught.value) == "no such model"
    assert ENGINE_ACTOR.items() <= rows.options.items()
