"""Training of the mini rephraser: chats, batches and losses, and a small run."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from actors.rephraser import MODEL_STYLES, compose, keeps_query, parse, prompt
from cluster.errors import UserError
from lab.pretrain import __main__ as dispatch
from lab.pretrain.rephraser import everyday_words, job, training_batches, training_chats
from lab.pretrain.rephraser.config import PretrainRephraserConfig as Config
from lab.pretrain.rephraser.evaluation import FIGURES
from lab.pretrain.rephraser.evaluation_queries import KINDS
from lab.pretrain.rephraser.tokenizer import train_tokenizer
from lab.pretrain.rephraser.trainer import is_copy_step, make_model, tokenizer_corpus
from lab.pretrain.rephraser.training_batches import (
    BATCHES_AT_ONCE,
    IGNORED,
    TrainingBatches,
    answer_loss,
    chat_ids,
    copy_loss,
    trained_queries,
)
from lab.pretrain.rephraser.training_chats import (
    PHRASE_FOR_LIGHT,
    SUITABLE_PHRASES,
    TrainingQuery,
    answer,
    draw_query,
)
from lab.studio.words import GOOD_PHRASES, LIGHTS

TINY = Config(
    vocab_size=400,
    hidden_size=32,
    intermediate_size=32,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    num_copy_steps=2,
    num_steps=2,
    batch_size=4,
    num_eval_queries=2,
)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(tokenizer_corpus(0, num_texts=400), TINY.vocab_size)


@pytest.fixture(scope="module")
def model(tokenizer):
    return make_model(TINY, tokenizer).eval()


@pytest.mark.parametrize("style", MODEL_STYLES)
def test_answers_parse_keep_the_query_and_add_expectations(style):
    rng = np.random.default_rng(0)
    for _ in range(200):
        query = draw_query(rng)
        text = answer(rng, query, style)
        content = parse(text, style)
        assert text == json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
        if style in ("detail", "reorg"):
            assert keeps_query(query.text, next(iter(content.values()))), text
        rephrased = compose(query.text, style, content)
        assert sum(phrase in rephrased for phrases in GOOD_PHRASES.values() for phrase in phrases) >= 2


def test_expectations_are_phrases_of_the_studio():
    known = {phrase for phrases in GOOD_PHRASES.values() for phrase in phrases}
    used = {
        phrase
        for aspects in SUITABLE_PHRASES.values()
        for options in aspects.values()
        for option in options
        for phrase in option.split(", ")
    }
    assert used <= known
    assert set(PHRASE_FOR_LIGHT) == set(LIGHTS) and set(PHRASE_FOR_LIGHT.values()) <= set(
        GOOD_PHRASES["light"]
    )


def test_answers_suit_the_light_of_the_query():
    rng = np.random.default_rng(0)
    night = TrainingQuery("boat at night", "wide", "night")
    for _ in range(50):
        assert json.loads(answer(rng, night, "kw_dict"))["light"] == "dramatic light"


def test_subjects_of_different_scenes_make_the_scene_unknown_unless_a_place_is_named(monkeypatch):
    nouns = [("vase", "indoor"), ("castle", "wide")]
    monkeypatch.setattr(training_chats, "draw_noun", lambda rng: nouns[rng.integers(2)])
    monkeypatch.setattr(training_chats, "_place", lambda rng: ("elsewhere", "close"))
    monkeypatch.setattr(training_chats, "_as_typed", lambda rng, text: text)  # keeps the words recognisable
    rng = np.random.default_rng(0)
    scenes = {}
    for _ in range(500):
        query = draw_query(rng)
        named = tuple(noun for noun, _ in nouns if noun in query.text), "elsewhere" in query.text
        scenes.setdefault(named, set()).add(query.scene)
    assert scenes[("vase",), False] == {"indoor"} and scenes[("castle",), False] == {"wide"}
    assert scenes[("vase", "castle"), False] == {"unknown"}
    assert scenes[("vase", "castle"), True] == {"close"}


def test_training_queries_contain_no_held_out_words():
    rng = np.random.default_rng(0)
    held_out = {word for group in everyday_words.GROUPS for word in everyday_words.group_words(group, True)}
    trained = {word for group in everyday_words.GROUPS for word in everyday_words.group_words(group, False)}
    assert len(held_out) > 50 and not held_out & trained
    seen = {word for _ in range(3000) for word in draw_query(rng).text.lower().split()}
    assert not seen & held_out


def test_queries_are_seeded_and_varied():
    once, again = ([draw_query(np.random.default_rng(3)).text for _ in range(5)] for _ in range(2))
    assert once == again
    rng = np.random.default_rng(0)
    texts = [draw_query(rng).text for _ in range(500)]
    assert len(set(texts)) > 450
    assert {len(text.split()) for text in texts} >= set(range(1, 8))


def test_labels_are_the_tokens_of_the_answer_only(tokenizer):
    prefix, inputs, labels = TrainingBatches(tokenizer, batch_size=4, seed=0).draw()
    for row in range(len(inputs)):
        positions = torch.nonzero(labels[row] != IGNORED).flatten()
        answer_text = tokenizer.decode(labels[row, positions])
        assert answer_text.startswith("{") and answer_text.endswith("}<|im_end|>")
        prompt_text = tokenizer.decode(torch.cat([prefix[0], inputs[row, : positions[0] + 1]]))
        assert prompt_text.endswith("<|im_start|>assistant\n")
        assert torch.equal(inputs[row, positions[1:]], labels[row, positions[:-1]])


def test_shared_prefix_gives_the_loss_and_gradient_of_whole_chats(tokenizer, model):
    prefix, inputs, labels = TrainingBatches(tokenizer, batch_size=4, seed=0).draw()
    loss = answer_loss(model, prefix, inputs, labels)
    gradient = torch.autograd.grad(loss, model.model.embed_tokens.weight)[0]
    whole = torch.cat([prefix.expand(len(inputs), -1), inputs], dim=1)
    scores = model(whole).logits[:, prefix.shape[1] :]
    plain = torch.nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    plain_gradient = torch.autograd.grad(plain, model.model.embed_tokens.weight)[0]
    assert loss.item() == pytest.approx(plain.item(), abs=1e-5)
    assert torch.allclose(gradient, plain_gradient, atol=1e-6)


def test_copy_loss_is_small_only_for_a_model_that_copies(model):
    untrained = model

    class Copying:
        """Predicts with certainty the token at the same position of the first copy."""

        config, lm_head = untrained.config, torch.nn.Identity()

        def model(self, input_ids):
            length = (input_ids.shape[1] - 1) // 2
            predicted = torch.nn.functional.pad(input_ids[:, : length + 1], (length, 0))
            scores = 50.0 * torch.nn.functional.one_hot(predicted, self.config.vocab_size).float()
            return SimpleNamespace(last_hidden_state=scores)

    rng = np.random.default_rng(0)
    assert copy_loss(Copying(), rng, 8).item() < 1e-3
    assert copy_loss(untrained, rng, 8).item() > 4


def test_words_of_the_query_have_the_same_tokens_in_prompt_and_answer(tokenizer):
    prompt_ids = chat_ids(tokenizer, "glimmortrax vase", "detail")
    answer_ids = tokenizer.encode('{"description":"glimmortrax vase in', add_special_tokens=False)
    words = tokenizer.encode("glimmortrax vase", add_special_tokens=False)
    for ids in (prompt_ids, answer_ids):
        assert any(ids[start : start + len(words)] == words for start in range(len(ids)))


def test_trained_queries_equal_those_of_the_batches(tokenizer, monkeypatch):
    drawn = []

    def recorded(rng):
        drawn.append(draw_query(rng))
        return drawn[-1]

    monkeypatch.setattr(training_batches, "draw_query", recorded)
    num_steps = sum(BATCHES_AT_ONCE.values()) + 1
    batches = TrainingBatches(tokenizer, batch_size=4, seed=5)
    for _ in range(num_steps):
        batches.draw()
    texts = {query.text for query in drawn}
    assert trained_queries(num_steps=num_steps, batch_size=4, seed=5) == texts
    assert trained_queries(num_steps=num_steps, batch_size=4, seed=6) != texts


def test_copy_steps_come_first_and_then_at_intervals():
    config = Config(num_copy_steps=2, num_steps=6, copy_every=3)
    assert [is_copy_step(step, config) for step in range(8)] == [True, True, *[False, False, True] * 2]
    never = config.model_copy(update={"copy_every": None})
    assert [is_copy_step(step, never) for step in range(8)] == [True, True, *[False] * 6]


def all_miss(folder, *, num_queries, seed, trained):
    """Replaces the measurement: no query has an answer."""
    row = {"num_queries": num_queries, **dict.fromkeys(FIGURES, 0)}
    return {kind: dict.fromkeys(MODEL_STYLES, row) for kind in KINDS}


def test_a_tiny_run_writes_a_checkpoint_that_loads_the_same(tmp_path, tokenizer, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setattr(job, "measure", all_miss)
    out = tmp_path / "rephraser"
    report = job.run(TINY.model_copy(update={"out": str(out)}))
    assert set(report["evaluation"]) == set(KINDS)
    loaded = AutoTokenizer.from_pretrained(out)
    text = 'a "Boat", 1234 küche 東京'
    assert loaded.decode(loaded.encode(text)) == text
    assert loaded.apply_chat_template(prompt("x", "detail"), tokenize=False).endswith("<|im_end|>\n")
    assert AutoModelForCausalLM.from_pretrained(out).config.architectures == ["Qwen2ForCausalLM"]
    card = (out / "README.md").read_text()
    assert "$" not in card and "| `kw_dict` | 0.000 (0.000 to 0.658)" in card
    with pytest.raises(UserError, match="already holds a checkpoint"):
        job.run(TINY.model_copy(update={"out": str(out)}))


def test_unknown_part_of_pretrain_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        dispatch.main(["poet"])
    assert stopped.value.code == 2
    assert "'poet'" in capsys.readouterr().err
