"""The engine's interface, without an engine."""

import importlib.util
import json
import math
import os
import shutil
import time

import pytest
from PIL import Image
from pydantic import ValidationError

from actors import engine
from actors.engine import (
    Reply,
    Request,
    check_model,
    conversation,
    generate_or_exit,
    make_engine,
    model_path,
    normalised,
)
from cluster.compat.errors import first_cause
from cluster.errors import UserError
from cluster.profile import LanguageModel, Stage, load_profile, repo_path


def settings(**values) -> LanguageModel:
    return LanguageModel(**{"model": "Qwen/Qwen2.5-7B-Instruct", "max_tokens": 8, "stage": Stage()} | values)


def test_unknown_engine_names_the_known_ones():
    unknown = settings().model_copy(update={"engine": "abacus"})
    with pytest.raises(UserError, match=r"abacus.*vllm_offline"):
        make_engine(unknown)


@pytest.mark.parametrize(
    "model", ["models/mini/nowhere", "./nowhere", "/nowhere/at/all", "nowhere", "models/x"]
)
def test_missing_model_folder_is_named(model):
    with pytest.raises(UserError, match=model):
        make_engine(settings(model=model))


def test_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        make_engine(settings(model=str(tmp_path)))


def test_hub_names_and_model_folders_are_accepted(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert model_path("Qwen/Qwen2.5-7B-Instruct") == "Qwen/Qwen2.5-7B-Instruct"
    assert model_path(str(tmp_path)) == str(tmp_path)


def test_missing_vllm_names_the_extras(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"kallos\[cpu\].*kallos\[gpu\]"):
        make_engine(settings())


def test_normalised_is_a_softmax_over_the_given_keys():
    probs = normalised({"A": -1000.0, "B": -1000.0 + 1.0986122886681098})
    assert probs == pytest.approx({"A": 0.25, "B": 0.75})


def test_conversation_puts_images_at_their_placeholders():
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    parts = [{"type": "image"}, {"type": "text", "text": "or"}, {"type": "image"}]
    messages = [{"role": "system", "content": "Judge."}, {"role": "user", "content": parts}]
    built = conversation(Request(messages, images=(red, blue)))
    assert built[0] == {"role": "system", "content": "Judge."}
    assert [part.get("image_pil") for part in built[1]["content"]] == [red, None, blue]
    assert parts[0] == {"type": "image"}


@pytest.mark.parametrize("num_images", [0, 2])
def test_conversation_refuses_images_that_do_not_match(num_images):
    image = Image.new("RGB", (4, 4))
    request = Request([{"role": "user", "content": [{"type": "image"}]}], images=(image,) * num_images)
    with pytest.raises(ValueError, match="image placeholders"):
        conversation(request)


class PoisonedEngine:
    """Answers with the words of each request, raises on the word "poison", and counts its calls."""

    def __init__(self, poison: str = "poison"):
        self.poison, self.num_calls = poison, 0

    def generate(self, requests):
        self.num_calls += 1
        texts = [request.messages[0]["content"] for request in requests]
        if any(self.poison in text for text in texts):
            raise RuntimeError("illegal memory access")
        return [Reply(text=text) for text in texts]


def asks(*texts: str) -> list[Request]:
    return [Request([{"role": "user", "content": text}]) for text in texts]


@pytest.mark.parametrize("num_requests", [2, 3, 64])
@pytest.mark.parametrize("position", ["first", "last"])
def test_prompt_on_which_the_engine_raises_gets_an_error_and_the_rest_is_answered(num_requests, position):
    texts = [f"word {number}" for number in range(num_requests)]
    culprit = 0 if position == "first" else num_requests - 1
    texts[culprit] = "a poison"
    engine = PoisonedEngine()
    replies = generate_or_exit(engine, asks(*texts))
    assert "illegal memory access" in replies[culprit].error and replies[culprit].text == ""
    others = [text for number, text in enumerate(texts) if number != culprit]
    assert [reply.text for reply in replies if not reply.error] == others
    assert engine.num_calls <= 2 * math.ceil(math.log2(num_requests)) + 1


def test_prompt_asked_alone_gets_an_error_from_an_engine_that_answered_before():
    engine = PoisonedEngine()
    generate_or_exit(engine, asks("fine"))
    assert "illegal memory access" in generate_or_exit(engine, asks("poison"))[0].error
    assert generate_or_exit(engine, asks("fine"))[0].text == "fine"


def test_engine_that_answers_nothing_raises_outside_an_actor():
    with pytest.raises(RuntimeError, match="illegal memory access"):
        generate_or_exit(PoisonedEngine(poison=""), asks("a", "b"))


def test_every_engine_that_a_profile_accepts_exists():
    named = LanguageModel.model_fields["engine"].annotation.__args__
    assert set(named) == set(engine.ENGINES)


MINI = load_profile("mini")


@pytest.fixture
def judge_folder(tmp_path):
    """A copy of the shipped judge, to damage."""
    folder = tmp_path / "judge"
    shutil.copytree(repo_path(MINI.judge.model), folder)
    return folder


def checked(folder, **values) -> None:
    check_model(MINI.judge.model_copy(update={"model": str(folder), **values}))


@pytest.mark.parametrize("name", ["mini", "gpu", "fleet"])
def test_models_of_the_shipped_profiles_pass_the_check(name):
    profile = load_profile(name)
    for model in (profile.rephraser, profile.judge):
        check_model(model, on_hub=False)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", lambda data: data[:-1]),
        ("model.safetensors", lambda data: data[: len(data) // 2]),
        ("model.safetensors", lambda data: b""),
        ("model.safetensors", lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ("config.json", lambda data: data[:-10]),
        ("config.json", lambda data: b""),
        ("config.json", lambda data: b"\xff\xfe"),
        ("tokenizer.json", lambda data: data[:1000]),
        ("tokenizer_config.json", lambda data: b"<html>404</html>"),
        ("tokenizer.json", lambda data: b"[" * 100_000),
        ("model.safetensors.index.json", lambda data: b"[]"),
        ("model.safetensors.index.json", lambda data: b'{"weight_map": [1]}'),
        ("model.safetensors.index.json", lambda data: b'{"weight_map": {"a": 1}}'),
    ],
)
def test_damaged_file_of_a_model_is_named_before_the_engine_loads(judge_folder, name, damage):
    path = judge_folder / name
    path.write_bytes(damage(path.read_bytes() if path.exists() else b""))
    with pytest.raises(UserError, match=rf"{judge_folder}.* is damaged: {name} cannot be read \(.+\): train"):
        checked(judge_folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_fifo_among_the_files_of_a_model_is_refused_instead_of_waited_for(judge_folder, name):
    (judge_folder / name).unlink()
    os.mkfifo(judge_folder / name)
    with pytest.raises(UserError, match=rf"is damaged: {name} cannot be read \(.*it is a FIFO"):
        checked(judge_folder)


def test_shard_of_weights_that_is_missing_is_named(judge_folder):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model.safetensors"}}
    (judge_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"model-00001-of-00002\.safetensors is missing"):
        checked(judge_folder)


@pytest.mark.parametrize(
    ("name", "words"), [("max_model_length", "did you mean 'max_model_len'"), ("zzz", "EngineArgs")]
)
def test_unknown_engine_argument_is_refused_before_the_engine_loads(name, words):
    with pytest.raises(UserError, match=f"The engine of '.*mini/judge' has no argument '{name}': .*{words}"):
        checked(MINI.judge.model, engine_args={name: 1})


def test_model_that_is_neither_cached_nor_within_reach_is_refused_at_once(tmp_path):
    began = time.monotonic()
    with pytest.raises(UserError, match=r"'owner/absent' is not in the cache.*hub cannot be reached.*folder"):
        checked("owner/absent", engine_args={"download_dir": str(tmp_path)})
    assert time.monotonic() - began < 5


def test_first_cause_is_one_line_without_the_errors_around_it():
    try:
        try:
            raise MemoryError("no\nroom")
        except MemoryError as error:
            raise RuntimeError("Engine core initialization failed. See root cause above.") from error
    except RuntimeError as error:
        assert first_cause(error) == "MemoryError: no room"
    assert first_cause(ValueError("a sentence.")) == "a sentence"
    assert first_cause(AssertionError()) == "AssertionError"
    assert len(first_cause(ValueError("x" * 10_000))) < 500


def test_first_cause_of_an_invalid_setting_names_it():
    with pytest.raises(ValidationError) as caught:
        Stage(num_cpus="many")
    assert first_cause(caught.value).startswith("num_cpus: Input should be a valid number")
