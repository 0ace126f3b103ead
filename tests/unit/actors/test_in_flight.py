"""The record of requests whose process died: who is suspected, who is refused, when the engine is broken."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from actors.in_flight import MAX_FRUITLESS, SPLIT, InFlight, key_of
from cluster.errors import JobFailure


@pytest.fixture
def died(tmp_path):
    """Record a process that died with these requests in flight."""

    def died(*keys: str, num_answered: int = 0, cause: str = "") -> None:
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        record = {"keys": keys, "num_answered": num_answered, "cause": cause}
        (tmp_path / f"{process.pid}.json").write_text(json.dumps(record))

    return died


def asked(folder, keys: list[str]) -> list[list[str]]:
    return [[keys[position] for position in part] for part in InFlight(folder).parts(keys)]


def test_requests_without_a_record_are_asked_together(tmp_path):
    assert asked(tmp_path, ["c", "a", "b"]) == [["c", "a", "b"]]


def test_requests_that_died_together_are_asked_in_parts_after_the_others(tmp_path, died):
    keys = [f"k{number:02}" for number in range(2 * SPLIT)]
    died(*keys)
    parts = asked(tmp_path, [*keys, "new"])
    assert parts[0] == ["new"] and parts[1:] == [keys[start : start + 2] for start in range(0, len(keys), 2)]
    died(*keys[:2])
    assert asked(tmp_path, keys)[-2:] == [["k00"], ["k01"]]


def test_request_that_died_with_others_and_then_alone_is_refused(tmp_path, died):
    died("a", "b", cause="RuntimeError: first")
    died("a")
    record = InFlight(tmp_path)
    assert record.is_culprit("a") and not record.is_culprit("b")
    assert record.cause_of("a") == "RuntimeError: first" and "native code" in InFlight(None).cause_of("a")


def test_one_death_alone_may_be_chance_and_a_second_is_not(tmp_path, died):
    died("a")
    assert not InFlight(tmp_path).is_culprit("a")
    died("a")
    assert InFlight(tmp_path).is_culprit("a")


def test_engine_that_never_answers_is_reported_with_its_first_cause(tmp_path, died):
    for number in range(MAX_FRUITLESS - 1):
        died("a", cause=f"cause {number}")
    InFlight(tmp_path).check()
    died("a", cause="the last cause")
    with pytest.raises(JobFailure, match=r"died 4 times in a row without an answer: cause 0\.$"):
        InFlight(tmp_path).check()


def test_an_answer_in_between_clears_the_engine(tmp_path, died):
    for number in range(3 * MAX_FRUITLESS):
        died(f"k{number}", num_answered=number % 2)
    InFlight(tmp_path).check()


def test_only_a_process_that_died_leaves_a_record(tmp_path):
    record = InFlight(tmp_path)
    record.begin(["a"])
    assert InFlight(tmp_path).deaths == []  # it runs: it is this process
    record.end()
    assert list(tmp_path.iterdir()) == []


def test_damaged_records_and_old_deaths_are_ignored(tmp_path, died):
    died("a")
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    (tmp_path / "999999999.json").write_text("{")
    (tmp_path / "strange.json").write_text("[]")
    assert InFlight(tmp_path).deaths == []


def test_key_depends_on_words_and_on_pictures():
    red, blue = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (40, 30), "blue")
    keys = {
        key_of("m", []),
        key_of("n", []),
        key_of("m", [red]),
        key_of("m", [blue]),
        key_of("m", [red, blue]),
    }
    assert len(keys) == 5 and key_of("m", [red]) == key_of("m", [red.copy()])
    assert len(key_of("\ud83d", [])) == 16
