"""Questions and pixels as tensors, and the judge's forward pass over a batch of questions that share
images.

Each image goes through the vision tower once a step, however many questions show it. Prompts are padded on
the right without an attention mask: attention is causal, so what follows the last token changes nothing
before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from lab.pretrain.judge.model import IMAGE_PX, MERGE, PATCH_PX, PATCHES_PER_SIDE, TOKENS_PER_IMAGE
from lab.pretrain.judge.questions import Question

# Means and deviations of CLIP's training images, which Qwen2.5-VL's processor uses too.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
IGNORED = -100


@dataclass(frozen=True)
class Prompts:
    """P prompts of one kind.

    input_ids: int64 [P, S]. positions: int64 [3, P, S], the multi-modal rotary positions. slots: int64
    [images shown], rows of the batch's images in the order of their placeholders. last: int64 [P], where
    the answer is read. answers: float32 [P, V] over the vocabulary (zero rows for descriptions). words:
    int64 [P, S], next tokens of descriptions and of queries that fit, `IGNORED` elsewhere. matches: int64
    [P, len(ASKED)] in 0, 1, 2, or [P, 0]. claim_places: int64 [C, 2], prompt and position of the last token
    of each phrase that claims something. claims: float32 [C, 2], 1 where that is true of the first and of the
    second image, 0 where it is not, NaN where there is no second.
    """

    input_ids: Tensor
    positions: Tensor
    slots: Tensor
    last: Tensor
    answers: Tensor
    words: Tensor
    matches: Tensor
    claim_places: Tensor
    claims: Tensor


def patches(pixels: np.ndarray) -> Tensor:
    """Pixels uint8 [B, IMAGE_PX, IMAGE_PX, 3] as Qwen2.5-VL's patches: float32 [B * patches, 3 * 2 *
    PATCH_PX**2].

    Patches come in groups of MERGE x MERGE, which the merger joins; the still image stands in for both
    frames.
    """
    batch = len(pixels)
    assert pixels.shape[1:] == (IMAGE_PX, IMAGE_PX, 3), pixels.shape
    images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255.0
    images = (images - torch.tensor(PIXEL_MEAN).view(3, 1, 1)) / torch.tensor(PIXEL_STD).view(3, 1, 1)
    blocks = PATCHES_PER_SIDE // MERGE
    images = images.view(batch, 3, blocks, MERGE, PATCH_PX, blocks, MERGE, PATCH_PX)
    images = images.permute(0, 2, 5, 3, 6, 1, 4, 7)  # [B, block y, block x, y, x, channel, py, px]
    images = images.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    return images.reshape(batch * PATCHES_PER_SIDE**2, -1)


class PatchLinear(nn.Module):
    """The patch embedding as a product with the convolution's own weights: 10 times faster on a CPU."""

    def __init__(self, convolution: nn.Conv3d):
        super().__init__()
        self.proj = convolution

    def forward(self, hidden_states: Tensor) -> Tensor:
        return F.linear(hidden_states, self.proj.weight.flatten(1))


class ImageAttention(nn.Module):
    """Attention of a block of the vision tower over equal images at once, where the original takes them one
    by one: half as long again quicker.
    """

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.qkv, self.proj, self.num_heads = attention.qkv, attention.proj, attention.num_heads

    def forward(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], **_: object
    ) -> Tensor:
        """Patches of full-size images, one image after the other, [B * patches, width] -> the same shape."""
        shape = (-1, PATCHES_PER_SIDE**2, 3, self.num_heads, self.qkv.in_features // self.num_heads)
        query, key, value = self.qkv(hidden_states).view(shape).permute(2, 0, 3, 1, 4)
        # The same for every image: those of the first.
        cos, sin = (table[: PATCHES_PER_SIDE**2].to(query.dtype) for table in position_embeddings)
        query, key = (x * cos + _rotate_half(x) * sin for x in (query, key))
        seen = F.scaled_dot_product_attention(query, key, value)
        return self.proj(seen.transpose(1, 2).reshape(hidden_states.shape))


def _rotate_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


def speed_up(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Swap parts of the vision tower for quicker ones that do the same; the names of the weights stay."""
    visual = model.model.visual
    visual.patch_embed = PatchLinear(visual.patch_embed.proj)
    for block in visual.blocks:
        block.attn = ImageAttention(block.attn)


def see(model: Qwen2_5_VLForConditionalGeneration, pixels: np.ndarray) -> Tensor:
    """Visual tokens of each image, [B, TOKENS_PER_IMAGE, text width]."""
    grid = torch.tensor([[1, PATCHES_PER_SIDE, PATCHES_PER_SIDE]]).expand(len(pixels), 3)
    seen = model.model.visual(patches(pixels), grid_thw=grid).pooler_output
    return seen.view(len(pixels), TOKENS_PER_IMAGE, -1)


def read(model: Qwen2_5_VLForConditionalGeneration, prompts: Prompts, seen: Tensor) -> Tensor:
    """Hidden states of the prompts, [P, S, text width], with their images' tokens in place."""
    embeddings = model.get_input_embeddings()(prompts.input_ids)
    shown = (prompts.input_ids == model.config.image_token_id).unsqueeze(-1)
    tokens = seen[prompts.slots].reshape(-1, seen.shape[-1]).to(embeddings.dtype)
    embeddings = embeddings.masked_scatter(shown, tokens)
    return model.model.language_model(
        inputs_embeds=embeddings, position_ids=prompts.positions, use_cache=False
    ).last_hidden_state


def answer_loss(model: Qwen2_5_VLForConditionalGeneration, prompts: Prompts, states: Tensor) -> Tensor:
    """Cross-entropy of the soft answer, over the whole vocabulary, at the answer's place: one value a
    prompt, [P].
    """
    at_answer = states[torch.arange(len(states)), prompts.last]
    return -(prompts.answers * F.log_softmax(model.lm_head(at_answer).float(), dim=-1)).sum(-1)


def description_loss(model: Qwen2_5_VLForConditionalGeneration, prompts: Prompts, states: Tensor) -> Tensor:
    """Mean cross-entropy of the next tokens of descriptions and captions; 0 where there are none."""
    kept = prompts.words != IGNORED
    if not kept.any():
        return states.new_zeros(())
    return F.cross_entropy(model.lm_head(states[kept]).float(), prompts.words[kept])


def word_loss(model: Qwen2_5_VLForConditionalGeneration, seen: Tensor, bags: Tensor) -> Tensor:
    """Cross-entropy between the words read off an image's mean visual token and those that fit it, a scalar.

    It puts what is seen where the words are: the visual tokens are read with the language model's own output
    matrix. seen: [B, TOKENS_PER_IMAGE, width]; bags: float32 [B, V], rows sum to 1.
    """
    scores = model.lm_head(model.model.language_model.norm(seen.mean(1))).float()
    return -(bags * F.log_softmax(scores, dim=-1)).sum(-1).mean()


def order_loss(p_first: Tensor) -> Tensor:
    """How far two orders of the same pair contradict each other: mean of (P(A) + P'(A) - 1)^2, a scalar.

    p_first: P(A), float32 [2 * pairs], a pair's two orders one after the other.
    """
    return (p_first.view(-1, 2).sum(-1) - 1).square().mean()


def answer_probabilities(
    model: Qwen2_5_VLForConditionalGeneration, prompts: Prompts, states: Tensor, token_ids: Sequence[int]
) -> Tensor:
    """Probabilities of the allowed answers, normalised over them: float32 [P, len(token_ids)]."""
    at_answer = states[torch.arange(len(states)), prompts.last]
    return model.lm_head(at_answer)[:, list(token_ids)].float().softmax(-1)


class PromptEncoder:
    """Questions -> `Prompts`, through the tokenizer's own chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.tokenizer = tokenizer
        self.image_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self.vocab_size = len(tokenizer)

    def token_ids(self, answers: Sequence[str]) -> list[int]:
        """The one token of each answer. Raises ValueError for an answer of several."""
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
        asked = [self._prompt(question) for question in questions]
        told = [self._words(question) for question in questions]
        length = max(len(a) + len(t) for a, t in zip(asked, told, strict=True))
        input_ids = torch.full((len(asked), length), self.tokenizer.pad_token_id)
        words = torch.full((len(asked), length), IGNORED)
        places: list[tuple[int, int]] = []
        for row, (prompt, text) in enumerate(zip(asked, told, strict=True)):
            input_ids[row, : len(prompt) + len(text)] = torch.tensor(prompt + text)
            words[row, len(prompt) - 1 : len(prompt) - 1 + len(text)] = torch.tensor(text, dtype=torch.long)
            start, query, ends = self._query(questions[row])
            places += [(row, start + end) for end in ends]
            if questions[row].fits:
                words[row, start - 1 : start - 1 + len(query)] = torch.tensor(query, dtype=torch.long)
        return Prompts(
            input_ids=input_ids,
            positions=torch.stack([positions(row, self.image_id) for row in input_ids.numpy()], dim=1),
            slots=torch.tensor([slot for question in questions for slot in question.images]),
            last=torch.tensor([len(prompt) - 1 for prompt in asked]),
            answers=self._answers(questions),
            words=words,
            matches=torch.tensor([question.matches for question in questions]),
            claim_places=torch.tensor(places, dtype=torch.long).view(-1, 2),
            claims=_claims(questions),
        )

    def _prompt(self, question: Question) -> list[int]:
        return self.tokenizer.encode(self._text(question), add_special_tokens=False)

    def _text(self, question: Question) -> str:
        text = self.tokenizer.apply_chat_template(
            question.messages, tokenize=False, add_generation_prompt=True
        )
        return text.replace("<|image_pad|>", "<|image_pad|>" * TOKENS_PER_IMAGE)

    def _query(self, question: Question) -> tuple[int, list[int], list[int]]:
        """Where the query's tokens start in the prompt, what they are, and which of them end a claim."""
        if not question.query:
            return 1, [], []
        before = self._text(question).split(f'"{question.query}"')[0] + '"'
        start = len(self.tokenizer.encode(before, add_special_tokens=False))
        encoded = self.tokenizer(question.query, add_special_tokens=False, return_offsets_mapping=True)
        ends, cursor = [], 0
        for phrase, _ in question.claims:
            cursor = question.query.index(phrase, cursor) + len(phrase)
            ends.append(next(i for i, (_, end) in enumerate(encoded["offset_mapping"]) if end >= cursor))
        return start, encoded["input_ids"], ends

    def _words(self, question: Question) -> list[int]:
        return (
            self.tokenizer.encode(question.text + "<|im_end|>", add_special_tokens=False)
            if question.text
            else []
        )

    def _answers(self, questions: Sequence[Question]) -> Tensor:
        answers = torch.zeros(len(questions), self.vocab_size)
        for row, question in enumerate(questions):
            if question.answer:
                ids = self.token_ids(list(question.answer))
                answers[row, ids] = torch.tensor(list(question.answer.values()))
        return answers


def _claims(questions: Sequence[Question]) -> Tensor:
    true = [[*map(float, of_images), np.nan][:2] for q in questions for _, of_images in q.claims]
    return torch.tensor(true, dtype=torch.float32).view(-1, 2)


def positions(input_ids: np.ndarray, image_id: int) -> Tensor:
    """Multi-modal rotary positions of one prompt of full-size images: int64 [3, S] (time, row, column).

    Text advances all three together; an image's tokens share one time and spread over rows and columns.
    """
    side = PATCHES_PER_SIDE // MERGE
    is_image = input_ids == image_id
    result = np.empty((3, len(input_ids)), dtype=np.int64)
    # Before a token stand so many text tokens, each one step, and so many whole images, each `side` steps.
    images_before = np.cumsum(is_image) - is_image
    start = np.cumsum(~is_image) - ~is_image + side * (images_before // TOKENS_PER_IMAGE)
    inside = np.where(is_image, images_before % TOKENS_PER_IMAGE, 0)
    result[0] = start
    result[1] = start + inside // side
    result[2] = start + inside % side
    return torch.from_numpy(result)
