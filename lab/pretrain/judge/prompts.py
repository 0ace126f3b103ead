"""Turns the training questions of the mini judge into tensors.

Prompts are padded on the right without an attention mask: attention is causal, so padding does not change
anything before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lab.pretrain.judge.model import MERGE, PAD, PATCHES_PER_SIDE, TOKENS_PER_IMAGE, token_id
from lab.pretrain.judge.questions import Question

IGNORED = -100


@dataclass(frozen=True)
class Prompts:
    """P prompts of one kind, as tensors.

    input_ids: int64 [P, S]. positions: int64 [3, P, S], the multi-modal rotary positions. slots: int64
    [images shown], rows of the batch's images in the order of their placeholders. last: int64 [P], position
    of the last prompt token, which predicts the answer. answers: float32 [P, V] over the vocabulary (zero
    rows for descriptions). words: int64 [P, S], next tokens of descriptions and of queries that the image
    matches, `IGNORED` elsewhere. matches: int64 [P, len(QUERY_PARTS)], or [P, 0]. phrase_ends: int64 [C, 2],
    prompt and position of the last token of each phrase. phrase_truths: float32 [C, 2], 1 where the phrase is
    true of the first and of the second image, 0 where it is false, NaN where there is no second image.
    """

    input_ids: Tensor
    positions: Tensor
    slots: Tensor
    last: Tensor
    answers: Tensor
    words: Tensor
    matches: Tensor
    phrase_ends: Tensor
    phrase_truths: Tensor


class PromptEncoder:
    """Questions -> `Prompts`, through the tokenizer's own chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.tokenizer = tokenizer
        self.image_id = token_id(tokenizer, "<|image_pad|>")
        self.pad_id = token_id(tokenizer, PAD)
        self.vocab_size = len(tokenizer)

    def token_ids(self, answers: Sequence[str]) -> list[int]:
        """The token of each one-token answer. Raises ValueError for an answer of several tokens."""
        encoded = [self.tokenizer.encode(answer, add_special_tokens=False) for answer in answers]
        if any(len(ids) != 1 for ids in encoded):
            raise ValueError(f"answers {list(answers)} must be single tokens, got {encoded}")
        return [ids[0] for ids in encoded]

    def bags(self, texts: Sequence[str]) -> Tensor:
        """For each text the uniform distribution over its tokens: float32 [B, V]."""
        bags = torch.zeros(len(texts), self.vocab_size)
        for row, text in enumerate(texts):
            ids = sorted(set(self.tokenizer.encode(text, add_special_tokens=False)))
            bags[row, ids] = 1.0 / len(ids)
        return bags

    def encode(self, questions: Sequence[Question]) -> Prompts:
        """Tensors of the questions, right-padded to the longest."""
        prompts = [self._prompt_tokens(question) for question in questions]
        texts = [self._text_tokens(question) for question in questions]
        length = max(len(prompt) + len(text) for prompt, text in zip(prompts, texts, strict=True))
        input_ids = torch.full((len(prompts), length), self.pad_id)
        words = torch.full((len(prompts), length), IGNORED)
        phrase_ends: list[tuple[int, int]] = []
        for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
            input_ids[row, : len(prompt) + len(text)] = torch.tensor(prompt + text)
            words[row, len(prompt) - 1 : len(prompt) - 1 + len(text)] = torch.tensor(text, dtype=torch.long)
            start, query, ends = self._query_tokens(questions[row])
            phrase_ends += [(row, start + end) for end in ends]
            if questions[row].is_accurate:
                words[row, start - 1 : start - 1 + len(query)] = torch.tensor(query, dtype=torch.long)
        return Prompts(
            input_ids=input_ids,
            positions=torch.stack([positions(row, self.image_id) for row in input_ids.numpy()], dim=1),
            slots=torch.tensor([slot for question in questions for slot in question.images]),
            last=torch.tensor([len(prompt) - 1 for prompt in prompts]),
            answers=self._answers(questions),
            words=words,
            matches=torch.tensor([question.matches for question in questions]),
            phrase_ends=torch.tensor(phrase_ends, dtype=torch.long).view(-1, 2),
            phrase_truths=_phrase_truths(questions),
        )

    def _prompt_tokens(self, question: Question) -> list[int]:
        return self.tokenizer.encode(self._prompt(question), add_special_tokens=False)

    def _prompt(self, question: Question) -> str:
        prompt = self.tokenizer.apply_chat_template(
            question.messages, tokenize=False, add_generation_prompt=True
        )
        assert isinstance(prompt, str)
        return prompt.replace("<|image_pad|>", "<|image_pad|>" * TOKENS_PER_IMAGE)

    def _query_tokens(self, question: Question) -> tuple[int, list[int], list[int]]:
        """Position of the query's first token in the prompt, its tokens, and which of them end a phrase."""
        if not question.query:
            return 1, [], []
        before = self._prompt(question).split(f'"{question.query}"')[0] + '"'
        start = len(self.tokenizer.encode(before, add_special_tokens=False))
        encoded = self.tokenizer(question.query, add_special_tokens=False, return_offsets_mapping=True)
        ends, cursor = [], 0
        for phrase, _ in question.phrases:
            cursor = question.query.index(phrase, cursor) + len(phrase)
            ends.append(next(i for i, (_, end) in enumerate(encoded["offset_mapping"]) if end >= cursor))
        return start, encoded["input_ids"], ends

    def _text_tokens(self, question: Question) -> list[int]:
        if not question.text:
            return []
        return self.tokenizer.encode(question.text + "<|im_end|>", add_special_tokens=False)

    def _answers(self, questions: Sequence[Question]) -> Tensor:
        answers = torch.zeros(len(questions), self.vocab_size)
        for row, question in enumerate(questions):
            if question.answer:
                ids = self.token_ids(list(question.answer))
                answers[row, ids] = torch.tensor(list(question.answer.values()))
        return answers


def _phrase_truths(questions: Sequence[Question]) -> Tensor:
    truths = [[*map(float, of_images), np.nan][:2] for q in questions for _, of_images in q.phrases]
    return torch.tensor(truths, dtype=torch.float32).view(-1, 2)


def positions(input_ids: np.ndarray, image_id: int) -> Tensor:
    """Multi-modal rotary positions of one prompt of full-size images: int64 [3, S] (time, row, column).

    A text token advances all three; the tokens of an image share one time and spread over rows and columns.
    """
    side = PATCHES_PER_SIDE // MERGE
    is_image = input_ids == image_id
    result = np.empty((3, len(input_ids)), dtype=np.int64)
    # Each earlier text token advances the position by 1, each earlier image by `side`.
    images_before = np.cumsum(is_image) - is_image
    start = np.cumsum(~is_image) - ~is_image + side * (images_before // TOKENS_PER_IMAGE)
    inside = np.where(is_image, images_before % TOKENS_PER_IMAGE, 0)
    result[0] = start
    result[1] = start + inside // side
    result[2] = start + inside % side
    return torch.from_numpy(result)
