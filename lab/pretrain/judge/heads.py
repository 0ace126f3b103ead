"""Auxiliary heads that help the mini judge to learn; they are dropped after training."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.pretrain.judge.prompts import Prompts
from lab.pretrain.judge.queries import QUERY_PARTS
from lab.pretrain.judge.scenes import CLASSES, LabelledScenes
from lab.studio.words import ASPECTS

ASPECTS_WEIGHT = 4.0  # of the squared error of the aspects beside the cross-entropy of the classes


class LatentHeads(nn.Module):
    """Heads on the pooled visual tokens: they classify the latents and regress each aspect and the beauty."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(2 * width)
        self.classify = nn.ModuleDict(
            {name: nn.Linear(2 * width, len(values)) for name, values in CLASSES.items()}
        )
        self.regress = nn.Linear(2 * width, len(ASPECTS) + 1)

    def forward(self, visual: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Visual tokens [B, T, width] -> class scores {name: [B, classes]}, values [B, len(ASPECTS) + 1]."""
        pooled = self.norm(torch.cat([visual.mean(1), visual.amax(1)], dim=-1))
        return {name: head(pooled) for name, head in self.classify.items()}, self.regress(pooled)

    def loss(self, visual: Tensor, scenes: LabelledScenes) -> Tensor:
        """Mean cross-entropy of the classes plus the weighted squared error of the values, a scalar."""
        scores, values = self(visual.float())
        labels = torch.from_numpy(scenes.labels)
        losses = [F.cross_entropy(scores[name], labels[:, i]) for i, name in enumerate(CLASSES)]
        truth = np.concatenate([scenes.aspects, scenes.aesthetics[:, None]], axis=1)
        error = F.mse_loss(values, torch.from_numpy(truth) - 0.5)
        return sum(losses, start=torch.zeros(())) / len(CLASSES) + ASPECTS_WEIGHT * error


class QueryHeads(nn.Module):
    """Heads on the language model: whether each part of the query matches the image.

    The answer alone does not say which word was wrong; from it, a small model does not learn to look.
    """

    def __init__(self, width: int):
        super().__init__()
        self.claim = nn.Linear(width, 2)
        self.classify = nn.Linear(width, 3 * len(QUERY_PARTS))

    def phrase_loss(self, prompts: Prompts, states: Tensor) -> Tensor:
        """Mean cross-entropy of whether each phrase is true of each image, read where the phrase ends."""
        rows, ends = prompts.phrase_ends.unbind(-1)
        scores, known = self.claim(states[rows, ends]).float(), ~prompts.phrase_truths.isnan()
        return F.binary_cross_entropy_with_logits(scores[known], prompts.phrase_truths[known])

    def match_loss(self, prompts: Prompts, states: Tensor) -> Tensor:
        """Mean cross-entropy of what the query says in each part, read where the answer is; a scalar."""
        scores = self.classify(states[torch.arange(len(states)), prompts.last]).float()
        return F.cross_entropy(scores.view(-1, 3), prompts.matches.view(-1))
