"""The teacher online: its engines start on demand, and what it answers is the cascade."""

import time

import httpx
import psutil
import pytest
import yaml
from served import ask, ids, running

from cluster.profile import PROFILES
from jobs.ingest import job as ingest
from jobs.ingest.config import IngestConfig
from lab.studio import job as write
from lab.studio.config import StudioConfig

GIVE_UP_S = 400
IDLE_S = 30


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The mini profile over a small studio."""
    folder = tmp_path_factory.mktemp("teacher")
    values = yaml.safe_load((PROFILES / "mini.yaml").read_text())
    values["store"] = str(folder / "store")
    values["serve"]["teacher_idle_s"] = IDLE_S
    profile = folder / "profile.yaml"
    profile.write_text(yaml.safe_dump(values))
    common = {"profile": str(profile)}
    sizes = {"num_images": 400, "num_train_queries": 8, "num_heldout_queries": 8, "num_hpir": 0}
    write.run(StudioConfig(out=str(folder / "studio"), **sizes, **common))
    ingest.run(IngestConfig(source=str(folder / "studio"), **common))
    yield from running({"profile": str(profile), "folder": folder})


def wait_for_teacher(server: httpx.Client, **body: object) -> dict:
    end = time.monotonic() + GIVE_UP_S
    while time.monotonic() < end:
        body = {"query": "a castle", "system": "teacher", **body}
        answer = server.post("/v1/search", json=body, timeout=GIVE_UP_S)
        if answer.status_code == 200:
            return answer.json()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "teacher_starting"), answer.text
        time.sleep(int(answer.headers["retry-after"]))
    raise AssertionError("the teacher did not start")


def test_the_first_question_starts_the_engines_and_is_told_to_come_again(server):
    began = time.monotonic()
    answer = server.post("/v1/search", json={"query": "a castle", "system": "teacher"})
    assert time.monotonic() - began < 10
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "teacher_starting")
    assert int(answer.headers["retry-after"]) > 0


def test_it_rephrases_and_orders_by_beauty(server):
    answer = wait_for_teacher(server, k=20)
    assert answer["rephrased"].startswith("a castle") and len(answer["rephrased"]) > len("a castle")
    assert set(answer["timings_ms"]) == {"rephrase", "encode", "search", "judge", "total"}
    scores = [row["score"] for row in answer["results"]]
    assert len(scores) == 20 and all(1 <= score <= 5 for score in scores)
    assert ids(answer) != ids(ask(server, query="a castle", k=20, system="baseline"))


def test_a_filter_that_nothing_passes_finds_nothing(server):
    answer = wait_for_teacher(server, k=5, filters={"min_width_px": 100_000})
    assert answer["results"] == [] and answer["rephrased"]


def test_it_takes_words_alone(server):
    answer = server.post("/v1/search", json={"query": "a castle", "negatives": ["fog"], "system": "teacher"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "teacher_takes_words")


def test_engines_that_nobody_asks_end_and_come_back(server):
    wait_for_teacher(server, k=1)
    assert engines()
    end = time.monotonic() + GIVE_UP_S
    while engines() and time.monotonic() < end:
        time.sleep(1)
    assert not engines()
    answer = server.post("/v1/search", json={"query": "a castle", "system": "teacher"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "teacher_starting")
    assert wait_for_teacher(server, k=1)["results"]


def engines() -> list[str]:
    """The processes of the server that hold the teacher's models."""
    names = ["".join(process.cmdline()) for process in psutil.Process().children(recursive=True)]
    return [name for name in names if "RephraserEngine" in name or "JudgeEngine" in name]
