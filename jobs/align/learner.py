"""The step of alignment, and the state that it moves. Plain torch: no Ray, any number of processes.

Only the towers that learn have gradients; the temperature stays the reference's. The model stays in eval
mode, so that BatchNorm statistics, which the reference scores rest on, do not move.
"""

import contextlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from actors.caption_pairs import contrastive_loss
from actors.encoder import Encoder
from cluster.profile import Align
from jobs.align.guard import GuardSet, recall_at_10
from jobs.align.objectives import preference_losses

# CLIP's own (arXiv 2103.00020, table 19). The epsilon also keeps weights whose gradient is only rounding
# error from moving by a whole step.
ADAM_BETAS, ADAM_EPS = (0.9, 0.98), 1e-6
GUARD_BATCH = 64  # images of the guard set that are encoded at once
# What an epoch reports: means over its queries (`loss_pt`: over its caption pairs).
METRICS = (
    "loss",
    "loss_preference",
    "loss_pt",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
)


@dataclass(frozen=True)
class Plan:
    """What a worker needs to know."""

    model: str  # the parent's checkpoint
    precision: str
    num_threads: int | None  # torch threads of a worker, None = torch's own choice
    num_steps: int  # optimiser steps of an epoch
    batches_per_step: int  # per worker
    num_feeders: int  # tasks that make batches at a time, for all workers together
    folder: str  # of the run: checkpoints and progress
    settings: Align
    keep_epochs: bool = False  # whether the checkpoints before the newest stay in the folder

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one worker in an epoch."""
        return self.num_steps * self.batches_per_step


class Towers(nn.Module):
    """Both towers as one module for DDP; an image tower that does not learn is not in it."""

    def __init__(self, encoder: Encoder, mode: str) -> None:
        super().__init__()
        self.model = encoder.model
        self.text_only = mode == "text"
        self._features = (encoder.image_features, encoder.text_features)
        self.model.requires_grad_(True)
        if self.text_only:
            self.model.visual.requires_grad_(False)
        for name in ("logit_scale", "logit_bias"):
            if isinstance(getattr(self.model, name, None), nn.Parameter):
                getattr(self.model, name).requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 pixels [N, 3, H, W], or vectors [N, D] in mode `text`; tokens [T, L] -> unit features."""
        image_features, text_features = self._features
        return images if self.text_only else image_features(images), text_features(tokens)

    def learned(self) -> dict[str, Tensor]:
        """The parameters that learn, by their name in the open_clip model."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}


def to_tensors(batch: dict[str, Any], encoder: Encoder) -> dict[str, Tensor]:
    """A batch of `batches.make_batch` with its images filled in -> tensors on the encoder's device."""
    arrays = {key: value for key, value in batch.items() if key not in ("texts", "number")}
    # Arrays from the object store are read-only, which torch cannot express: it is only ever read.
    tensors = {key: torch.tensor(value).to(encoder.device) for key, value in arrays.items()}
    return {**tensors, "tokens": encoder.tokenize(list(batch["texts"])).to(encoder.device)}


def batch_loss(
    towers: nn.Module, batch: dict[str, Tensor], settings: Align, temperature: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The batch's loss, L_preference + w_pt L_pt, with gradient, and its metrics, detached.

    Every distinct image and text is encoded once; pairs gather their scores from those. L_pt is over the
    caption pairs of this batch alone, other workers' captions are no negatives: the gradient is the same
    for any number of workers, and nothing but gradients crosses the network.
    """
    images, texts = towers(batch["images"], batch["tokens"])
    query = texts[batch["pair_query"]]
    losses, chosen, rejected = preference_losses(
        settings.objective,
        (
            (query * images[batch["pair_winner"]]).sum(-1) / temperature,
            (query * images[batch["pair_loser"]]).sum(-1) / temperature,
        ),
        (batch["winner_reference"], batch["loser_reference"]),
        p_chosen=batch["p_winner"],
        query=batch["pair_query"],
        images=(batch["pair_winner"], batch["pair_loser"]),
        beta=settings.beta,
        target_margin=settings.target_margin,
        pair_weight=batch["pair_weight"],
    )
    weight = batch["pair_weight"]
    loss_preference = (weight * losses).sum()
    loss_pt = _caption_loss(images, texts, batch, temperature)
    loss = loss_preference + settings.pretrain_weight * loss_pt
    parts = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/accuracies": (chosen > rejected).float(),
        "rewards/margins": chosen - rejected,
    }
    means = {name: (weight * value).sum() for name, value in parts.items()}
    return loss, {
        "loss": loss.detach(),
        "loss_preference": loss_preference.detach(),
        "loss_pt": loss_pt.detach(),
        **means,
    }


def _caption_loss(images: Tensor, texts: Tensor, batch: dict[str, Tensor], temperature: float) -> Tensor:
    image, text = batch["caption_image"], batch["caption_text"]
    if not len(image):
        return images.new_zeros(())
    same = (image[:, None] == image[None]) | (text[:, None] == text[None])
    return contrastive_loss(images[image], texts[text], temperature=temperature, same=same).mean()


def learning_rate_factor(step: int, *, num_steps: int, warmup: float) -> float:
    """In (0, 1]: a linear rise over the first `warmup` of all steps, then a cosine towards 0."""
    num_warmup = max(1, round(warmup * num_steps))
    if step < num_warmup:
        return (step + 1) / num_warmup
    return (1 + math.cos(math.pi * (step - num_warmup) / max(1, num_steps - num_warmup))) / 2


class Learner:
    """The state of training: towers, optimiser, schedule, and what each epoch so far reported.

    `recall_before` is the reference's recall@10 on the guard set, None until it is measured, and for good
    where there is no guard set. `over_limit` says that the last epoch lost more of it than allowed: then
    training is over, and what `keep` put aside before that epoch is what was learned.
    """

    def __init__(self, encoder: Encoder, plan: Plan) -> None:
        self.encoder, self.plan = encoder, plan
        self.temperature = encoder.temperature
        self.towers = Towers(encoder, plan.settings.mode)
        self.wrapped: nn.Module = self.towers  # by DDP where there are several workers
        self.parameters = list(self.towers.learned().values())
        settings = plan.settings
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            betas=ADAM_BETAS,
            eps=ADAM_EPS,
        )
        num_steps = settings.epochs * plan.num_steps
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: learning_rate_factor(step, num_steps=num_steps, warmup=settings.warmup),
        )
        self.epochs: list[dict[str, float]] = []
        self.recall_before: float | None = None
        self.over_limit = False
        self._kept: dict[str, Tensor] = {}

    @property
    def finished(self) -> bool:
        """Whether no epoch is left to train."""
        return self.over_limit or len(self.epochs) >= self.plan.settings.epochs

    def step(self, batches: list[dict[str, Any]]) -> dict[str, Tensor]:
        """One optimiser step on the mean loss of the batches; returns the means of their metrics."""
        totals: dict[str, Tensor] = {}
        for last, batch in _mark_last(batches):
            # DDP exchanges gradients once a step, with the last batch.
            waits = isinstance(self.wrapped, nn.parallel.DistributedDataParallel) and not last
            with self.wrapped.no_sync() if waits else contextlib.nullcontext():
                tensors = to_tensors(batch, self.encoder)
                loss, metrics = batch_loss(self.wrapped, tensors, self.plan.settings, self.temperature)
                (loss / len(batches)).backward()
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0) + value / len(batches)
        nn.utils.clip_grad_norm_(self.parameters, self.plan.settings.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        return totals

    def epoch(self, batches: Iterable[dict[str, Any]]) -> Tensor:
        """Learn from one epoch's batches of this worker; returns its mean of `METRICS`, float32 [7]."""
        total = torch.zeros(len(METRICS), device=self.encoder.device)
        num_steps, pending = 0, []
        for batch in batches:
            pending.append(batch)
            if len(pending) == self.plan.batches_per_step:
                metrics = self.step(pending)
                total += torch.stack([metrics[name] for name in METRICS])
                num_steps, pending = num_steps + 1, []
        assert num_steps == self.plan.num_steps and not pending, (
            num_steps,
            self.plan.num_steps,
            len(pending),
        )
        return total / num_steps

    def recall(self, guard: GuardSet, take: Callable[[np.ndarray], np.ndarray]) -> float:
        """recall@10 of the guard set with the weights as they are; `take` is that of `inputs.Images`."""
        vectors = []
        for start in range(0, len(guard.rows), GUARD_BATCH):
            images = take(guard.rows[start : start + GUARD_BATCH])
            vectors.append(images if self.towers.text_only else self.encoder.encode_images(images))
        return recall_at_10(self.encoder.encode_texts(guard.captions), np.concatenate(vectors))

    def keep(self) -> None:
        """Put the weights aside, in the host's memory: what is left when the next epoch goes too far."""
        learned = self.towers.learned()
        self._kept = {name: value.detach().to("cpu", copy=True) for name, value in learned.items()}

    def state(self) -> dict[str, Any]:
        """Everything that a later worker needs to go on as if never interrupted.

        `learned` are the weights of the last epoch within the limit of the guard.
        """
        return {
            "learned": self._kept if self.over_limit else self.towers.learned(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"last_epoch": self.schedule.last_epoch},
            "epochs": self.epochs,
            "recall_before": self.recall_before,
            "over_limit": self.over_limit,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.towers.model.load_state_dict(state["learned"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.last_epoch = state["schedule"]["last_epoch"]
        self.epochs = state["epochs"]
        self.recall_before = state["recall_before"]
        self.over_limit = state["over_limit"]


def _mark_last(items: list[Any]) -> Iterable[tuple[bool, Any]]:
    return ((place == len(items) - 1, item) for place, item in enumerate(items))
