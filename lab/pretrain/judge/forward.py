"""The mini judge's forward pass over a batch of questions that share images, and its losses.

Each image goes through the vision tower once a step, however many questions show it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from lab.pretrain.judge.model import IMAGE_PX, MERGE, PATCH_PX, PATCHES_PER_SIDE, TOKENS_PER_IMAGE
from lab.pretrain.judge.prompts import IGNORED, Prompts

# Means and deviations of CLIP's training images, which Qwen2.5-VL's processor uses too.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def patches(pixels: np.ndarray) -> Tensor:
    """uint8 [B, IMAGE_PX, IMAGE_PX, 3] -> Qwen2.5-VL's patches, float32 [B * patches, 3 * 2 * PATCH_PX**2].

    Patches come in groups of MERGE x MERGE, which the merger joins. The architecture expects two video
    frames: both are the same image.
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
    """The patch embedding as a matrix product with the convolution's weights: 10 times faster on a CPU."""

    def __init__(self, convolution: nn.Conv3d):
        super().__init__()
        self.proj = convolution

    def forward(self, hidden_states: Tensor) -> Tensor:
        return F.linear(hidden_states, self.proj.weight.flatten(1))


class ImageAttention(nn.Module):
    """Attention of a vision block over a batch of equal images: 1.5 times as fast as the original's loop."""

    def __init__(self, attention: Any):
        super().__init__()
        self.qkv: nn.Linear = attention.qkv
        self.proj: nn.Linear = attention.proj
        self.num_heads: int = attention.num_heads

    def forward(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], **_: object
    ) -> Tensor:
        """Patches of full-size images, one image after the other, [B * patches, width] -> the same shape."""
        shape = (-1, PATCHES_PER_SIDE**2, 3, self.num_heads, self.qkv.in_features // self.num_heads)
        query, key, value = self.qkv(hidden_states).view(shape).permute(2, 0, 3, 1, 4)
        # All images have the same position embeddings, so those of the first image are enough.
        cos, sin = (table[: PATCHES_PER_SIDE**2].to(query.dtype) for table in position_embeddings)
        query, key = (x * cos + _rotate_half(x) * sin for x in (query, key))
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.proj(attended.transpose(1, 2).reshape(hidden_states.shape))


def _rotate_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


def speed_up(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Replace parts of the vision tower by faster equivalents; the names of the weights do not change."""
    visual: Any = model.model.visual
    visual.patch_embed = PatchLinear(visual.patch_embed.proj)
    for block in visual.blocks:
        block.attn = ImageAttention(block.attn)


def visual_tokens(model: Qwen2_5_VLForConditionalGeneration, pixels: np.ndarray) -> Tensor:
    """Visual tokens of each image, [B, TOKENS_PER_IMAGE, text width]; pixels as in `patches`."""
    grid = torch.tensor([[1, PATCHES_PER_SIDE, PATCHES_PER_SIDE]]).expand(len(pixels), 3)
    tokens = model.model.visual(patches(pixels), grid_thw=grid).pooler_output
    return tokens.view(len(pixels), TOKENS_PER_IMAGE, -1)


def hidden_states(model: Qwen2_5_VLForConditionalGeneration, prompts: Prompts, visual: Tensor) -> Tensor:
    """Hidden states of the prompts, [P, S, text width], with the visual tokens of their images inserted."""
    embeddings = model.get_input_embeddings()(prompts.input_ids)
    is_image = (prompts.input_ids == model.config.image_token_id).unsqueeze(-1)
    tokens = visual[prompts.slots].reshape(-1, visual.shape[-1]).to(embeddings.dtype)
    embeddings = embeddings.masked_scatter(is_image, tokens)
    return model.model.language_model(
        inputs_embeds=embeddings, position_ids=prompts.positions, use_cache=False
    ).last_hidden_state


def answer_loss(model: Qwen2_5_VLForConditionalGeneration, prompts: Prompts, states: Tensor) -> Tensor:
    """Cross-entropy of the soft answer over the whole vocabulary, one value for each prompt, [P]."""
    at_answer = states[torch.arange(len(states)), prompts.last]
    return -(prompts.answers * F.log_softmax(model.lm_head(at_answer).float(), dim=-1)).sum(-1)


def description_loss(model: Qwen2_5_VLForConditionalGeneration, prompts: Prompts, states: Tensor) -> Tensor:
    """Mean cross-entropy of the next tokens of descriptions and matching queries; 0 without any."""
    kept = prompts.words != IGNORED
    if not kept.any():
        return states.new_zeros(())
    return F.cross_entropy(model.lm_head(states[kept]).float(), prompts.words[kept])


def word_loss(model: Qwen2_5_VLForConditionalGeneration, visual: Tensor, bags: Tensor) -> Tensor:
    """Cross-entropy between the words predicted from an image's mean visual token and its bag, a scalar.

    The visual tokens go through the language model's own output matrix, so that they align with the words.
    visual: [B, TOKENS_PER_IMAGE, width]; bags: float32 [B, V], rows sum to 1.
    """
    scores = model.lm_head(model.model.language_model.norm(visual.mean(1))).float()
    return -(bags * F.log_softmax(scores, dim=-1)).sum(-1).mean()


def order_loss(p_first: Tensor) -> Tensor:
    """How far the two orders of a pair contradict each other: mean of (P(A) + P'(A) - 1)^2, a scalar.

    p_first: P(A), float32 [2 * pairs], the two orders of a pair one after the other.
    """
    return (p_first.view(-1, 2).sum(-1) - 1).square().mean()


def answer_probabilities(
    model: Qwen2_5_VLForConditionalGeneration, prompts: Prompts, states: Tensor, token_ids: Sequence[int]
) -> Tensor:
    """Probabilities of the allowed answers, normalised over them: float32 [P, len(token_ids)]."""
    at_answer = states[torch.arange(len(states)), prompts.last]
    return model.lm_head(at_answer)[:, list(token_ids)].float().softmax(-1)
