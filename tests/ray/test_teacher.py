"""The teacher as a system: its engines start on demand, and its answers are those of the cascade."""

import time

import httpx
import psutil
import pytest
import yaml
from served import ask, ids, run_server

from cluster.profile import PROFILES
from jobs.ingest import job as ingest
from jobs.ingest.config import IngestConfig
from lab.bench.serve.processes import command_lines
from lab.studio import job as write
from lab.studio.config import StudioConfig

TIMEOUT_S = 400
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
    yield from run_server(str(profile), folder)


def wait_for_teacher(server: httpx.Client, **body: object) -> dict:
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        body = {"query": "a castle", "system": "teacher", **body}
        answer = server.post("/v1/search", json=body, timeout=TIMEOUT_S)
        if answer.status_code == 200:
            return answer.json()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "teacher_starting"), answer.text
        time.sleep(int(answer.headers["retry-after"]))
    raise AssertionError("the teacher did not start")


def test_first_search_starts_the_engines_and_returns_503(server):
    began = time.monotonic()
    answer = server.post("/v1/search", json={"query": "a castle", "system": "teacher"})
    assert time.monotonic() - began < 10
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "teacher_starting")
    assert int(answer.headers["retry-after"]) > 0


def test_teacher_rephrases_and_orders_by_beauty(server):
    answer = wait_for_teacher(server, k=20)
    assert answer["rephrased"].startswith("a castle") and len(answer["rephrased"]) > len("a castle")
    assert set(answer["timings_ms"]) == {"rephrase", "encode", "search", "judge", "total"}
    scores = [row["score"] for row in answer["results"]]
    assert len(scores) == 20 and all(1 <= score <= 5 for score in scores)
    assert ids(answer) != ids(ask(server, query="a castle", k=20, system="baseline"))
    rephrased = ask(server, query="a castle", k=20, system="rephrase")
    assert rephrased["rephrased"] == answer["rephrased"]
    assert ids(rephrased) == ids(ask(server, query=answer["rephrased"], k=20, system="baseline"))


def test_filter_that_excludes_every_image_gives_no_results(server):
    answer = wait_for_teacher(server, k=5, filters={"min_width_px": 100_000})
    assert answer["results"] == [] and answer["rephrased"]


def test_teacher_refuses_negatives(server):
    answer = server.post("/v1/search", json={"query": "a castle", "negatives": ["fog"], "system": "teacher"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "teacher_takes_words")


def test_idle_engines_stop_and_start_again(server):
    wait_for_teacher(server, k=1)
    assert engine_processes()
    end = time.monotonic() + TIMEOUT_S
    while engine_processes() and time.monotonic() < end:
        time.sleep(1)
    assert not engine_processes()
    answer = server.post("/v1/search", json={"query": "a castle", "system": "teacher"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "teacher_starting")
    assert wait_for_teacher(server, k=1)["results"]


def engine_processes() -> list[str]:
    """The processes that hold the teacher's models."""
    below = psutil.Process().children(recursive=True)
    names = ["".join(words) for words in command_lines(below).values()]
    return [name for name in names if "RephraserEngine" in name or "JudgeEngine" in name]
