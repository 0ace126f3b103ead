"""The mini rephraser's training batches and losses: chats with a shared prompt prefix, and tokens to copy."""

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

from actors.rephraser import MODEL_STYLES, prompt
from lab.pretrain.rephraser.tokenizer import END, PAD, token_id
from lab.pretrain.rephraser.training_chats import TrainingQuery, answer, draw_query

IGNORED = -100
# Batches drawn at once, by style. Sentences get more, because repeating the query takes longest to learn.
BATCHES_AT_ONCE = {"detail": 10, "k_list": 6, "kw_dict": 6, "reorg": 10}


def chat_ids(tokenizer: PreTrainedTokenizerBase, query: str, style: str) -> list[int]:
    """Token ids of the prompt as the engine encodes it, up to where the answer begins."""
    text = tokenizer.apply_chat_template(prompt(query, style), tokenize=False, add_generation_prompt=True)
    assert isinstance(text, str)
    return tokenizer.encode(text, add_special_tokens=False)


def shared_prefix(tokenizer: PreTrainedTokenizerBase, style: str) -> list[int]:
    """The tokens with which every prompt of a style begins; the model reads them once a step."""
    one, other = chat_ids(tokenizer, "a", style), chat_ids(tokenizer, "(b", style)
    same = [left == right for left, right in zip(one, other, strict=False)]
    return one[: same.index(False)]


def draw_chats(rng: np.random.Generator, batch_size: int) -> dict[str, list[tuple[TrainingQuery, str]]]:
    """The queries and answers of the next `BATCHES_AT_ONCE` batches, by style."""
    chats = {}
    for style, num_batches in BATCHES_AT_ONCE.items():
        queries = (draw_query(rng) for _ in range(batch_size * num_batches))
        chats[style] = [(query, answer(rng, query, style)) for query in queries]
    return chats


def draw_order(rng: np.random.Generator) -> np.ndarray:
    """The order in which the batches of `draw_chats` are used."""
    return rng.permutation(sum(BATCHES_AT_ONCE.values()))


def trained_queries(*, num_steps: int, batch_size: int, seed: int) -> set[str]:
    """Every query in the first `num_steps` batches of a `TrainingBatches` with this seed.

    Batches are drawn several at once, so a few later queries are included.
    """
    rng = np.random.default_rng(seed)
    texts: set[str] = set()
    for _ in range(-(-num_steps // sum(BATCHES_AT_ONCE.values()))):
        for chats in draw_chats(rng, batch_size).values():
            texts.update(query.text for query, _ in chats)
        draw_order(rng)
    return texts


class TrainingBatches:
    """Endless seeded batches of chats of one style and similar length, so that there is little padding."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, batch_size: int, seed: int):
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.rng = np.random.default_rng(seed)
        self.prefixes = {style: shared_prefix(tokenizer, style) for style in MODEL_STYLES}
        self._ready: list[tuple[str, list[tuple[list[int], int]]]] = []

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """The next batch: prefix [1, P], inputs [B, S], labels [B, S], all int64.

        Labels are the next tokens of the answers, `IGNORED` elsewhere. Inputs are padded on the right.
        """
        if not self._ready:
            self._refill()
        style, chats = self._ready.pop()
        longest = max(len(ids) for ids, _ in chats) - 1
        inputs = torch.full((len(chats), longest), token_id(self.tokenizer, PAD))
        labels = torch.full((len(chats), longest), IGNORED)
        for row, (ids, num_prompt) in enumerate(chats):
            inputs[row, : len(ids) - 1] = torch.tensor(ids[:-1])
            labels[row, num_prompt - 1 : len(ids) - 1] = torch.tensor(ids[num_prompt:])
        return torch.tensor([self.prefixes[style]]), inputs, labels

    def _refill(self) -> None:
        """Draw `BATCHES_AT_ONCE` batches of each style, sort chats by length, and shuffle the batches."""
        for style, drawn in draw_chats(self.rng, self.batch_size).items():
            chats = [self._chat(query.text, text, style) for query, text in drawn]
            chats.sort(key=lambda chat: len(chat[0]))
            for start in range(0, len(chats), self.batch_size):
                self._ready.append((style, chats[start : start + self.batch_size]))
        self._ready = [self._ready[index] for index in draw_order(self.rng)]

    def _chat(self, query: str, answer_text: str, style: str) -> tuple[list[int], int]:
        """Token ids after the shared prefix, and how many of them belong to the prompt."""
        prompt_ids = chat_ids(self.tokenizer, query, style)[len(self.prefixes[style]) :]
        answer_ids = self.tokenizer.encode(answer_text + END, add_special_tokens=False)
        return prompt_ids + answer_ids, len(prompt_ids)


def answer_loss(model: Qwen2ForCausalLM, prefix: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the tokens of the answers, a scalar.

    The prefix goes through the model once; the whole batch uses its keys and values, with their gradients.
    """
    cache = model.model(input_ids=prefix, use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(inputs))
    hidden = model.model(input_ids=inputs, past_key_values=cache, use_cache=True).last_hidden_state
    in_answer = labels != IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[in_answer]).float(), labels[in_answer])


def copy_loss(model: Qwen2ForCausalLM, rng: np.random.Generator, batch_size: int) -> Tensor:
    """Mean cross-entropy of repeating 4 to 24 random tokens after a separator, a scalar.

    This teaches a model to copy within minutes. Chats alone take many times as long, because few of their
    tokens are copied.
    """
    length = int(rng.integers(4, 25))
    tokens = torch.from_numpy(rng.integers(0, model.config.vocab_size, (batch_size, length)))
    assert model.config.pad_token_id is not None
    separator = torch.full((batch_size, 1), model.config.pad_token_id)
    ids = torch.cat([separator, tokens, separator, tokens], dim=1)
    hidden = model.model(input_ids=ids[:, :-1]).last_hidden_state[:, length + 1 :]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden).float().flatten(0, 1), tokens.flatten())
