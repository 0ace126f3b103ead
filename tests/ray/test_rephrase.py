"""The real engine with the shipped rephraser: answers, errors as values, a pool that loses no row."""

import dataclasses
import inspect
import itertools
import os
import tempfile

import numpy as np
import pyarrow as pa
import pytest
import ray
import torch

from actors.engine import Reply, Request, make_engine
from actors.rephraser import MODEL_STYLES, Rephrase, keeps_query, parse, prompt, rephrase, schema
from actors.stages import add_stage
from cluster.compat import vllm_engine
from cluster.profile import Stage, load_profile
from lab.pretrain.rephraser.evaluation_queries import KINDS, EvaluationQuery, untrained_queries
from lab.pretrain.rephraser.expectation_check import check

QUERIES = [
    "red sailboat at sunset",
    "Zanzibar flimmer",
    "two owls and a lantern",
    "château",
    "東京 tower",
    "x",
]


@pytest.fixture(scope="module")
def model():
    """The shipped rephraser as the default profile hosts it."""
    return load_profile("mini").rephraser


@pytest.fixture(scope="module")
def temporary_folder(tmp_path_factory):
    """Where vLLM makes its temporary files."""
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def engine(model, temporary_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary_folder))
        return make_engine(model)


@pytest.mark.parametrize("style", MODEL_STYLES)
def test_shipped_model_rephrases_queries_of_every_kind(engine, style):
    """The targets of the model card, on few queries; the card reports narrow intervals."""
    queries = [EvaluationQuery(query, (query,), "unknown") for query in QUERIES]
    queries += [query for kind in KINDS for query in untrained_queries(kind, 10, seed=11)]
    results = rephrase(engine, [query.text for query in queries], style)
    assert [error for _, error in results if error] == []
    texts = [text for text, _ in results]
    assert all(keeps_query(query.text, text) for query, text in zip(queries, texts, strict=True))
    checked = [check(query, text) for query, text in zip(queries, texts, strict=True)]
    assert np.mean([text.keeps_subject for text in checked]) >= 0.95
    assert np.mean([len(text.suitable) >= 2 for text in checked]) >= 0.95
    assert np.mean([text.unsuitable == () for text in checked]) >= 0.9


@pytest.mark.parametrize("style", MODEL_STYLES)
def test_strict_grammar_always_gives_an_answer_that_parses(engine, style):
    """For prompts that the model was never trained on, the grammar alone enforces the form."""
    chats = [[{"role": "user", "content": f"{word} {word}?"}] for word in ("why", "0", "größe", "{}")]
    replies = engine.generate(
        [Request(chat, schema=schema(style, strict=True), max_tokens=320) for chat in chats]
    )
    for reply in replies:
        assert reply.finish_reason == "stop"
        assert "\n" not in reply.text and '": ' not in reply.text
        parse(reply.text, style)


def test_choice_probabilities_equal_those_of_transformers(engine, model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    chat = prompt("red boat", "kw_dict")
    (reply,) = engine.generate([Request(chat, choices=("a", "b", "1"))])
    tokenizer = AutoTokenizer.from_pretrained(model.model)
    plain = AutoModelForCausalLM.from_pretrained(model.model, dtype=torch.float32).eval()
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    with torch.no_grad():
        scores = plain(tokenizer(text, return_tensors="pt").input_ids).logits[0, -1]
    ids = [tokenizer.encode(choice)[0] for choice in ("a", "b", "1")]
    expected = torch.softmax(scores[ids], 0).tolist()
    assert list(reply.choice_probs.values()) == pytest.approx(expected, abs=2e-3)
    assert reply.text == max(reply.choice_probs, key=reply.choice_probs.get)


def test_faulty_request_gets_an_error_and_the_others_are_answered(engine):
    good = Request(prompt("a lighthouse", "kw_dict"), schema=schema("kw_dict"))
    too_long = Request([{"role": "user", "content": "boat " * 5000}])
    not_one_token = Request(prompt("a", "kw_dict"), choices=("A", "quite impossible"))
    cut = Request(prompt("a lighthouse", "kw_dict"), max_tokens=3)
    alone = engine.generate([good])[0]
    replies = engine.generate([good, too_long, not_one_token, good, cut])
    assert alone.error == "" and alone.finish_reason == "stop"
    assert replies[0] == replies[3] == alone
    assert "refused" in replies[1].error and replies[1].text == ""
    assert "quite impossible" in replies[2].error
    assert replies[4].finish_reason == "length"
    assert engine.generate([]) == []


def test_engine_that_has_loaded_leaves_no_rendezvous_file(engine, temporary_folder):
    """vLLM names it `vllm_dist_...`; `cluster.compat.vllm_engine` removes it."""
    assert engine.generate([Request(prompt("a lighthouse", "kw_dict"), max_tokens=3)])[0].error == ""
    assert list(temporary_folder.glob("vllm_dist_*")) == []


def test_call_that_raises_leaves_no_request_for_the_next_one(engine, monkeypatch):
    good = [Request(prompt(query, "kw_dict"), schema=schema("kw_dict")) for query in QUERIES]
    replies = engine.generate(good)
    with monkeypatch.context() as patch:
        calls = itertools.count()
        step = engine.llm.llm_engine.step

        def failing():
            if next(calls) == 3:
                raise RuntimeError("illegal memory access")
            return step()

        patch.setattr(engine.llm.llm_engine, "step", failing)
        with pytest.raises(RuntimeError, match="illegal memory access"):
            engine.generate(good)
    assert not engine.llm.llm_engine.has_unfinished_requests()
    assert engine.generate(good[:2]) == replies[:2]


def test_argument_names_are_those_of_the_installed_vllm():
    """`vllm_engine.argument_names` reads them in the source."""
    from vllm import LLM, EngineArgs

    constructor = {name for name in inspect.signature(LLM).parameters if name not in ("model", "kwargs")}
    fields = {field.name for field in dataclasses.fields(EngineArgs)}
    assert vllm_engine.argument_names() == fields | constructor


@pytest.mark.parametrize("how", ["the engine raises", "the process is killed"])
def test_no_row_is_lost_or_duplicated_when_an_engine_dies(ray_cluster, tmp_path, how):
    marker = tmp_path / "died"

    class MortalEngine:
        """Dies once, in the middle of its work, and answers after the restart."""

        def generate(self, requests):
            if (
                any('"q17"' in request.messages[-1]["content"] for request in requests)
                and not marker.exists()
            ):
                marker.touch()
                if how == "the process is killed":
                    os.kill(os.getpid(), 9)
                raise RuntimeError("engine core died")
            return [Reply(text='{"qualities":["soft light","calm"]}') for _ in requests]

    class MortalRephrase(Rephrase):
        def __init__(self):
            self.style, self.engine = "k_list", MortalEngine()

    queries = [f"q{number}" for number in range(40)]
    blocks = [pa.table({"query": queries[start : start + 5]}) for start in range(0, 40, 5)]
    stage = Stage(min_actors=2, max_actors=2, batch_size=5)
    rows = add_stage(ray.data.from_arrow(blocks), MortalRephrase, {}, stage, batch_format="numpy")
    answered = [(row["query"], row["rephrased"]) for row in rows.take_all()]
    assert marker.exists()
    assert sorted(answered) == sorted((query, f"{query}, soft light, calm") for query in queries)


@pytest.mark.parametrize("how", ["the engine raises", "the process is killed"])
def test_query_that_breaks_every_engine_becomes_an_error_and_the_rest_is_answered(ray_cluster, how):
    class PoisonedEngine:
        """Fails on the ghost every time. Once it has raised it raises on everything, as a broken GPU does."""

        broken = False

        def generate(self, requests):
            self.broken |= any(f'"ghost of {how}"' in request.messages[-1]["content"] for request in requests)
            if self.broken and how == "the process is killed":
                os.kill(os.getpid(), 9)
            if self.broken:
                raise RuntimeError("illegal memory access")
            return [Reply(text='{"qualities":["soft light","calm"]}') for _ in requests]

    class PoisonedRephrase(Rephrase):
        def __init__(self):
            self.style, self.engine = "k_list", PoisonedEngine()

    queries = [*(f"{how} {number}" for number in range(39)), f"ghost of {how}"]
    rows = ray.data.from_arrow([pa.table({"query": queries[start : start + 20]}) for start in (0, 20)])
    stage = Stage(min_actors=1, max_actors=1, batch_size=20)
    answered = add_stage(rows, PoisonedRephrase, {}, stage, batch_format="numpy").take_all()
    errors = {row["query"]: row["rephrase_error"] for row in answered if row["rephrase_error"]}
    cause = "illegal memory access" if how == "the engine raises" else "native code"
    assert list(errors) == [f"ghost of {how}"] and cause in errors[f"ghost of {how}"]
    assert sorted(row["query"] for row in answered) == sorted(queries)
