"""One optimiser step of alignment, and the training state. Plain torch: no Ray, any number of processes.

Only the towers that train have gradients, and the temperature keeps the reference's value. The model stays in
eval mode, so that BatchNorm statistics do not change: the reference scores were computed with them.
"""

import contextlib
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from actors.caption_pairs import contrastive_loss
from actors.encoder import Encoder
from cluster.errors import UserError
from cluster.profile import Align
from jobs.align.objectives import preference_losses

# As in CLIP (arXiv 2103.00020, table 19). With a smaller epsilon, weights whose gradient is only rounding
# error would move by a whole step.
ADAM_BETAS, ADAM_EPS = (0.9, 0.98), 1e-6
# The metrics of an epoch: means over its queries (`loss_pt`: over its caption pairs).
METRICS = (
    "loss",
    "loss_preference",
    "loss_pt",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
)


class Towers(nn.Module):
    """Both towers as one module for DDP. In mode `text` the image tower is frozen and unused."""

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
        """The parameters that train, by their name in the open_clip model."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}


def to_tensors(batch: dict[str, Any], encoder: Encoder) -> dict[str, Tensor]:
    """A batch of `make_batch`, with pixels or vectors as `images` -> tensors on the encoder's device."""
    arrays = {key: value for key, value in batch.items() if key not in ("texts", "index")}
    # `torch.tensor` copies: arrays from the object store are read-only, which torch does not support.
    tensors = {key: torch.tensor(value).to(encoder.device) for key, value in arrays.items()}
    return {**tensors, "tokens": encoder.tokenize(list(batch["texts"])).to(encoder.device)}


def batch_loss(
    towers: nn.Module, batch: dict[str, Tensor], settings: Align, temperature: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The batch's loss, L_preference + w_pt L_pt, with gradient, and its metrics, detached.

    Every distinct image and text is encoded once, and pairs gather their scores from these vectors. L_pt
    takes its negatives from this batch alone, so the gradient is the same for any number of workers, and
    only gradients cross the network.
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
    loss_pt = _caption_loss(images, texts, batch, temperature)
    parts = (losses, chosen, rejected, (chosen > rejected).float(), chosen - rejected)
    loss_preference, *rewards = ((batch["pair_weight"] * part).sum() for part in parts)
    rewards = [value / batch["pair_weight"].sum() for value in rewards]  # means, whatever the queries weigh
    loss = loss_preference + settings.pretrain_weight * loss_pt
    values = (loss, loss_preference, loss_pt, *rewards)  # in the order of METRICS
    return loss, {name: value.detach() for name, value in zip(METRICS, values, strict=True)}


def _caption_loss(images: Tensor, texts: Tensor, batch: dict[str, Tensor], temperature: float) -> Tensor:
    image, text = batch["caption_image"], batch["caption_text"]
    if not len(image):
        return images.new_zeros(())
    same = (image[:, None] == image[None]) | (text[:, None] == text[None])
    return contrastive_loss(images[image], texts[text], temperature=temperature, same=same).mean()


def learning_rate_factor(step: int, *, num_steps: int, warmup: float) -> float:
    """Factor in (0, 1]: rises linearly over the first `warmup` share of all steps, then falls as a cosine."""
    num_warmup = max(1, round(warmup * num_steps))
    if step < num_warmup:
        return (step + 1) / num_warmup
    return (1 + math.cos(math.pi * (step - num_warmup) / max(1, num_steps - num_warmup))) / 2


def has_diverged(epochs: Sequence[dict[str, Any]]) -> bool:
    """Whether the last of these epochs has no finite loss: further training is useless."""
    return bool(epochs) and not math.isfinite(epochs[-1]["loss"])


def check_finite(state: dict[str, Any]) -> None:
    """Raise UserError for a result of `Learner.state` whose loss or weights are not finite."""
    finite = all(value.isfinite().all() for value in state["learned"].values())
    if not finite or has_diverged(state["epochs"]):
        raise UserError(
            f"Training diverged in epoch {len(state['epochs'])}: the loss or a weight is not finite, "
            "so no encoder is registered: set a smaller align.learning_rate, align.beta or "
            "align.pretrain_weight."
        )


class Learner:
    """The state of training: towers, optimiser, learning rate, and the metrics of each epoch so far.

    `num_steps` is the number of optimiser steps in an epoch. `alpha_curve` is what the guard measures after
    the last epoch, empty until then or if there is no guard set.
    """

    def __init__(self, encoder: Encoder, settings: Align, num_steps: int) -> None:
        self.encoder, self.settings, self.num_steps = encoder, settings, num_steps
        self.temperature = encoder.temperature
        self.towers = Towers(encoder, settings.mode)
        self.wrapped: nn.Module = self.towers  # wrapped in DDP when there are several workers
        self.parameters = list(self.towers.learned().values())
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            betas=ADAM_BETAS,
            eps=ADAM_EPS,
        )
        all_steps = settings.epochs * num_steps
        self.lr_schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: learning_rate_factor(step, num_steps=all_steps, warmup=settings.warmup),
        )
        self.epochs: list[dict[str, float]] = []
        self.alpha_curve: list[dict[str, float]] = []

    @property
    def finished(self) -> bool:
        """Whether training is over."""
        return has_diverged(self.epochs) or len(self.epochs) >= self.settings.epochs

    def step(self, batches: list[dict[str, Any]]) -> dict[str, Tensor]:
        """One optimiser step on the mean loss of the batches; returns the means of their metrics.

        Raises FloatingPointError for a gradient that is not finite.
        """
        assert len(batches) == self.settings.batches_per_step, len(batches)
        totals: dict[str, Tensor] = {}
        for index, batch in enumerate(batches, start=1):
            with self._gradient_exchange(last=index == len(batches)):
                tensors = to_tensors(batch, self.encoder)
                loss, metrics = batch_loss(self.wrapped, tensors, self.settings, self.temperature)
                (loss / len(batches)).backward()
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0) + value / len(batches)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.gradient_clip)
        if not norm.isfinite():  # the norm after the exchange is the same in all workers
            raise FloatingPointError(f"the gradient's norm is {norm.item()}")
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.lr_schedule.step()
        return totals

    def _gradient_exchange(self, *, last: bool) -> contextlib.AbstractContextManager:
        """Workers exchange gradients once per step, with the last batch."""
        if last or not isinstance(self.wrapped, nn.parallel.DistributedDataParallel):
            return contextlib.nullcontext()
        return self.wrapped.no_sync()

    def epoch(self, batches: Iterable[dict[str, Any]]) -> Tensor:
        """Train on this worker's batches of one epoch; returns the mean of each of `METRICS`, float32 [7].

        All are NaN if training diverges, which ends the epoch.
        """
        total = torch.zeros(len(METRICS), device=self.encoder.device)
        stream = iter(batches)
        for _ in range(self.num_steps):
            try:
                metrics = self.step(list(itertools.islice(stream, self.settings.batches_per_step)))
            except FloatingPointError:
                return torch.full_like(total, math.nan)
            total += torch.stack([metrics[name] for name in METRICS])
        return total / self.num_steps

    def state(self) -> dict[str, Any]:
        """Everything that a new worker needs to continue exactly where this one stopped."""
        return {
            "learned": self.towers.learned(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"last_epoch": self.lr_schedule.last_epoch},
            "epochs": self.epochs,
            "alpha_curve": self.alpha_curve,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a result of `state`."""
        self.towers.model.load_state_dict(state["learned"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_schedule.last_epoch = state["schedule"]["last_epoch"]
        self.epochs = state["epochs"]
        self.alpha_curve = state["alpha_curve"]
