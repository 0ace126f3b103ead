"""The engine's interface, without an engine."""

import importlib.util
import math

import pytest
from PIL import Image

from actors import engine
from actors.engine import Reply, Request, conversation, generate_or_exit, make_engine, model_path, normalised
from cluster.errors import UserError
from cluster.profile import LanguageModel, Stage


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
