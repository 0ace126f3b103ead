"""The training of the mini judge: its stages, losses and optimiser, and what a checkpoint holds."""

import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from actors import judge
from cluster import terminal
from lab.pretrain.judge import forward
from lab.pretrain.judge.config import PretrainJudgeConfig
from lab.pretrain.judge.heads import LatentHeads, QueryHeads
from lab.pretrain.judge.model import load, make_config, make_model, train_tokenizer
from lab.pretrain.judge.prompts import PromptEncoder
from lab.pretrain.judge.queries import descriptive_words
from lab.pretrain.judge.questions import Question, sample_accuracy, sample_questions, tokenizer_corpus
from lab.pretrain.judge.scenes import LabelledScenes, augmented, sample_images

LOSS_WEIGHTS = {
    "aesthetics": 1.0,
    "accuracy": 1.0,
    "compare": 1.5,
    "order": 2.0,
    "together": 1.0,
    "describe": 0.5,
    "caption": 0.3,
    "phrase_accuracy": 2.0,
    "phrase_compare": 1.0,
    "phrase_together": 0.5,
    "match": 1.0,
    "latents": 0.5,
    "words": 0.5,
}
VISION, MATCH, ALL = range(3)  # the stages of training
STEPS_PER_LINE = 50
SAVED_PARTS = ("model", "latent_heads", "query_heads", "optimizer")


class Trainer:
    """Model, auxiliary heads, optimiser and the current step: everything that a checkpoint holds."""

    def __init__(self, config: PretrainJudgeConfig):
        self.config = config
        self.tokenizer, self.model = load(config.init) if config.init else create(config)
        forward.speed_up(self.model)
        self.latent_heads = LatentHeads(config.text_width)
        self.query_heads = QueryHeads(config.text_width)
        self.encoder = PromptEncoder(self.tokenizer)
        self.step = 0
        self.optimizer = torch.optim.AdamW(
            self._parameter_groups(), betas=(0.9, 0.98), lr=config.learning_rate, fused=True
        )

    @property
    def total_steps(self) -> int:
        """Steps of all stages together."""
        return sum(self._stage_lengths())

    def _stage_lengths(self) -> tuple[int, int, int]:
        return self.config.vision_steps, self.config.match_steps, self.config.steps

    def _stage(self) -> tuple[int, int, int]:
        """The stage of the current step (`VISION`, `MATCH`, `ALL`), the step within it, and its length."""
        step = self.step
        for stage, length in enumerate(self._stage_lengths()):
            if step < length or stage == ALL:
                return stage, step, length
            step -= length
        raise AssertionError(self.step)

    def parameters(self) -> list[nn.Parameter]:
        """All trained parameters."""
        parts = (self.model, self.latent_heads, self.query_heads)
        return [parameter for part in parts for parameter in part.parameters()]

    def _parameter_groups(self) -> list[dict]:
        parameters = self.parameters()
        return [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": self.config.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]

    def train_step(self, scenes: LabelledScenes) -> dict[str, float]:
        """Train on one batch and return its losses.

        The batch depends on the seed and the step alone, so a resumed run sees the same batches as an
        uninterrupted one.
        """
        rng = np.random.default_rng([self.config.seed, self.step])
        rows = sample_images(rng, scenes, self.config.images_per_step)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        batch = augmented(scenes, rows, rng)
        with torch.autocast("cpu", torch.bfloat16):
            losses = self.losses(batch, rng, stage=self._stage()[0])
        total = sum((LOSS_WEIGHTS[name] * loss for name, loss in losses.items()), start=torch.zeros(()))
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return {name: loss.item() for name, loss in losses.items()}

    def losses(self, batch: LabelledScenes, rng: np.random.Generator, *, stage: int) -> dict[str, Tensor]:
        """Mean loss of each task of the stage on a batch of scenes."""
        if stage == MATCH:
            with torch.no_grad():
                visual = forward.visual_tokens(self.model, batch.pixels)
            return self._question_losses("accuracy", sample_accuracy(rng, batch.latents, times=2), visual)
        visual = forward.visual_tokens(self.model, batch.pixels)
        bags = self.encoder.bags([descriptive_words(scene, rng) for scene in batch.latents])
        losses = {
            "latents": self.latent_heads.loss(visual, batch),
            "words": forward.word_loss(self.model, visual, bags),
        }
        if stage == ALL:
            of_kinds = sample_questions(rng, batch.latents, self.config.pairs_per_criterion)
            for kind, questions in of_kinds.items():
                losses.update(self._question_losses(kind, questions, visual))
        return losses

    def _question_losses(self, kind: str, questions: list[Question], visual: Tensor) -> dict[str, Tensor]:
        """Mean losses of one kind of question."""
        prompts = self.encoder.encode(questions)
        states = forward.hidden_states(self.model, prompts, visual)
        if kind == "describe":
            return {kind: forward.description_loss(self.model, prompts, states)}
        losses = {kind: forward.answer_loss(self.model, prompts, states).mean()}
        if kind == "compare":
            letters = self.encoder.token_ids(judge.LETTERS)
            probabilities = forward.answer_probabilities(self.model, prompts, states, letters)
            losses["order"] = forward.order_loss(probabilities[:, 0])
        if len(prompts.phrase_truths):
            losses[f"phrase_{kind}"] = self.query_heads.phrase_loss(prompts, states)
        if kind == "accuracy":
            losses["caption"] = forward.description_loss(self.model, prompts, states)
            losses["match"] = self.query_heads.match_loss(prompts, states)
        return losses

    def _learning_rate(self) -> float:
        """Warm-up and cosine in each stage: the last stage ends at 0.01 of the peak, the others at 0.3."""
        stage, step, length = self._stage()
        floor = 0.01 if stage == ALL else 0.3
        warm_up = min(1.0, (step + 1) / min(100, length))
        cosine = 0.5 * (1 + math.cos(math.pi * step / length))
        return self.config.learning_rate * warm_up * (floor + (1 - floor) * cosine)

    def save_checkpoint(self, path: Path) -> None:
        """Write everything that a resumed run needs; it replaces the old checkpoint only once complete."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        state = {name: getattr(self, name).state_dict() for name in SAVED_PARTS}
        torch.save({**state, "step": self.step, "config": self.config.model_dump()}, unfinished)
        unfinished.replace(path)

    def load_checkpoint(self, path: Path) -> None:
        """Continue from the checkpoint if it exists and has the same configuration."""
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        if state["config"] != self.config.model_dump():
            terminal.say(f"{path} has a different configuration: training starts from step 0")
            return
        for name in SAVED_PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.step = state["step"]


def create(config: PretrainJudgeConfig) -> tuple[PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration]:
    """A new tokenizer and model of the configured sizes."""
    tokenizer = train_tokenizer(
        tokenizer_corpus(np.random.default_rng(config.seed), 4_000), config.vocab_size
    )
    sizes = config.model_dump(include={"vision_width", "vision_depth", "text_width", "text_depth"})
    return tokenizer, make_model(make_config(tokenizer, **sizes), config.seed)


def train(trainer: Trainer, scenes: LabelledScenes, checkpoint: Path) -> None:
    """Run the remaining steps; print mean losses to stderr and save checkpoints on the way."""
    started = saved = time.monotonic()
    first_step, recent = trainer.step, []
    while trainer.step < trainer.total_steps:
        recent.append(trainer.train_step(scenes))
        if trainer.step % STEPS_PER_LINE == 0 or trainer.step == trainer.total_steps:
            images = (trainer.step - first_step) * trainer.config.images_per_step
            _print_losses(trainer, recent, images / (time.monotonic() - started))
            recent = []
        if time.monotonic() - saved > trainer.config.checkpoint_every_s:
            trainer.save_checkpoint(checkpoint)
            saved = time.monotonic()


def _print_losses(trainer: Trainer, recent: list[dict[str, float]], images_per_s: float) -> None:
    means = {name: np.mean([losses[name] for losses in recent if name in losses]) for name in recent[-1]}
    text = "  ".join(f"{name} {mean:.3f}" for name, mean in means.items())
    terminal.say(f"step {trainer.step}/{trainer.total_steps}  {images_per_s:.0f} images/s  {text}")
