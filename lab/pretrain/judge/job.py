"""Train the small judge: a Qwen2.5-VL of a few million parameters that rates and compares studio scenes.

Input: nothing but the studio. Output: a folder that vLLM and transformers load (config, bfloat16 safetensors,
tokenizer, processor), a model card with the figures measured through vLLM on scenes never trained on, and
`resolved_config.yaml`.

    kallos pretrain judge --out runs/pretrain/judge

Three stages in one loop. The vision tower alone learns to name the latents, with auxiliary heads (dropped
afterwards) and with the language model's own words: from scratch that is many times quicker than through the
answers. Then, the tower fixed, the language model learns to tell which words fit a picture. Then everything
together learns to answer, beside the same heads. A checkpoint is written every few minutes; run again, it
goes on from there.
"""

import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from actors import judge
from cluster import command
from lab.pretrain.folder import check_free
from lab.pretrain.judge import batch as jb
from lab.pretrain.judge.config import JudgeTraining
from lab.pretrain.judge.model import load, make_config, make_model, make_processor, save, train_tokenizer
from lab.pretrain.judge.questions import ASKED, Question, corpus, name_all, sample_accuracy, sample_questions
from lab.pretrain.judge.scenes import CLASSES, Scenes, batch_of, make_scenes, sample_images
from lab.studio.words import ASPECTS

LOSS_WEIGHTS = {
    "aesthetics": 1.0,
    "accuracy": 1.0,
    "compare": 1.5,
    "order": 2.0,
    "together": 1.0,
    "describe": 0.5,
    "caption": 0.3,
    "claim_accuracy": 2.0,
    "claim_compare": 1.0,
    "claim_together": 0.5,
    "match": 1.0,
    "latents": 0.5,
    "words": 0.5,
}
HELDOUT_SEED_OFFSET = 1_000_003
VISION, MATCH, ALL = range(3)
PARTS = ("model", "heads", "match_heads", "optimizer")


class LatentHeads(nn.Module):
    """Auxiliary heads on the pooled visual tokens: classify what is there, regress each aspect."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(2 * width)
        self.classify = nn.ModuleDict(
            {name: nn.Linear(2 * width, len(values)) for name, values in CLASSES.items()}
        )
        self.regress = nn.Linear(2 * width, len(ASPECTS) + 1)

    def forward(self, seen: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Visual tokens [B, T, width] -> class scores {name: [B, classes]}, aspects and beauty [B, ASPECTS
        + 1].
        """
        pooled = self.norm(torch.cat([seen.mean(1), seen.amax(1)], dim=-1))
        return {name: head(pooled) for name, head in self.classify.items()}, self.regress(pooled)

    def loss(self, seen: Tensor, scenes: Scenes) -> Tensor:
        """Mean cross-entropy of the classes plus squared error of the aspects (in units of their spread), a
        scalar.
        """
        scores, values = self(seen.float())
        labels = torch.from_numpy(scenes.labels)
        named = sum(F.cross_entropy(scores[name], labels[:, i]) for i, name in enumerate(CLASSES))
        truth = np.concatenate([scenes.aspects, scenes.aesthetics[:, None]], axis=1)
        return named / len(CLASSES) + 4.0 * F.mse_loss(values, torch.from_numpy(truth) - 0.5)


class MatchHeads(nn.Module):
    """Auxiliary heads on the language model: what the query says of the picture, phrase by phrase.

    The answer alone says too little of which word was wrong; a small model then does not learn to look.
    """

    def __init__(self, width: int):
        super().__init__()
        self.claim = nn.Linear(width, 2)
        self.classify = nn.Linear(width, 3 * len(ASKED))

    def claim_loss(self, prompts: jb.Prompts, states: Tensor) -> Tensor:
        """Mean cross-entropy, a scalar: is each phrase true of each image? Told where the phrase ends."""
        rows, places = prompts.claim_places.unbind(-1)
        scores, known = self.claim(states[rows, places]).float(), ~prompts.claims.isnan()
        return F.binary_cross_entropy_with_logits(scores[known], prompts.claims[known])

    def match_loss(self, prompts: jb.Prompts, states: Tensor) -> Tensor:
        """Mean cross-entropy of each of `ASKED` where the answer is read, a scalar."""
        scores = self.classify(states[torch.arange(len(states)), prompts.last]).float()
        return F.cross_entropy(scores.view(-1, 3), prompts.matches.view(-1))


class Trainer:
    """Model, heads, optimizer and the place in the schedule; everything a checkpoint holds."""

    def __init__(self, config: JudgeTraining):
        self.config = config
        self.tokenizer, self.model = load(config.init) if config.init else create(config)
        jb.speed_up(self.model)
        self.heads = LatentHeads(config.text_width)
        self.match_heads = MatchHeads(config.text_width)
        self.encoder = jb.PromptEncoder(self.tokenizer)
        self.step = 0
        self.optimizer = torch.optim.AdamW(
            self._groups(), betas=(0.9, 0.98), lr=config.learning_rate, fused=True
        )

    @property
    def total_steps(self) -> int:
        return sum(self._lengths())

    def _lengths(self) -> tuple[int, int, int]:
        return self.config.vision_steps, self.config.match_steps, self.config.steps

    def _stage(self) -> tuple[int, int, int]:
        """The current step's stage (`VISION`, `MATCH`, `ALL`), the place in it, and its length."""
        place = self.step
        for stage, length in enumerate(self._lengths()):
            if place < length or stage == 2:
                return stage, place, length
            place -= length
        raise AssertionError(self.step)

    def parameters(self) -> list[nn.Parameter]:
        """Everything that learns."""
        parts = (self.model, self.heads, self.match_heads)
        return [parameter for part in parts for parameter in part.parameters()]

    def _groups(self) -> list[dict]:
        parameters = self.parameters()
        return [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": self.config.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]

    def train_step(self, scenes: Scenes) -> dict[str, float]:
        """One batch; returns its losses. What is drawn depends on the seed and the step alone, so a resumed
        run sees what an uninterrupted one sees.
        """
        rng = np.random.default_rng([self.config.seed, self.step])
        rows = sample_images(rng, scenes, self.config.images_per_step)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        batch = batch_of(scenes, rows, rng)
        with torch.autocast("cpu", torch.bfloat16):
            losses = self.losses(batch, rng, stage=self._stage()[0])
        total = sum(LOSS_WEIGHTS[name] * loss for name, loss in losses.items())
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return {name: loss.item() for name, loss in losses.items()}

    def losses(self, batch: Scenes, rng: np.random.Generator, *, stage: int) -> dict[str, Tensor]:
        """Mean loss of each task of the stage on a batch of scenes."""
        if stage == MATCH:
            with torch.no_grad():
                seen = jb.see(self.model, batch.pixels)
            return self._answers("accuracy", sample_accuracy(rng, batch.latents, times=2), seen)
        seen = jb.see(self.model, batch.pixels)
        named = self.encoder.bags([name_all(scene, rng) for scene in batch.latents])
        losses = {"latents": self.heads.loss(seen, batch), "words": jb.word_loss(self.model, seen, named)}
        if stage == ALL:
            asked = sample_questions(rng, batch.latents, self.config.pairs_per_criterion)
            for kind, questions in asked.items():
                losses.update(self._answers(kind, questions, seen))
        return losses

    def _answers(self, kind: str, questions: list[Question], seen: Tensor) -> dict[str, Tensor]:
        """Mean losses of one kind of question."""
        prompts = self.encoder.encode(questions)
        states = jb.read(self.model, prompts, seen)
        if kind == "describe":
            return {kind: jb.description_loss(self.model, prompts, states)}
        losses = {kind: jb.answer_loss(self.model, prompts, states).mean()}
        if kind == "compare":
            answers = self.encoder.token_ids(judge.LETTERS)
            losses["order"] = jb.order_loss(
                jb.answer_probabilities(self.model, prompts, states, answers)[:, 0]
            )
        if len(prompts.claims):
            losses[f"claim_{kind}"] = self.match_heads.claim_loss(prompts, states)
        if kind == "accuracy":
            losses["caption"] = jb.description_loss(self.model, prompts, states)
            losses["match"] = self.match_heads.match_loss(prompts, states)
        return losses

    def _learning_rate(self) -> float:
        """Warm-up and cosine in each stage; the last one ends near nothing, the others at a third."""
        stage, place, length = self._stage()
        floor = 0.01 if stage == ALL else 0.3
        warm = min(1.0, (place + 1) / min(100, length))
        cosine = 0.5 * (1 + math.cos(math.pi * place / length))
        return self.config.learning_rate * warm * (floor + (1 - floor) * cosine)

    def save_checkpoint(self, path: Path) -> None:
        """Write everything that a resumed run needs; the old checkpoint stays until the new one is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        state = {name: getattr(self, name).state_dict() for name in PARTS}
        torch.save({**state, "step": self.step, "config": self.config.model_dump()}, unfinished)
        unfinished.replace(path)

    def load_checkpoint(self, path: Path) -> None:
        """Go on from a checkpoint of the same configuration; one of another is left alone."""
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        if state["config"] != self.config.model_dump():
            print(f"{path} is of another configuration: starting anew", file=sys.stderr)
            return
        for name in PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.step = state["step"]


def create(config: JudgeTraining) -> tuple[PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration]:
    """A fresh tokenizer and model of the configured sizes."""
    tokenizer = train_tokenizer(corpus(np.random.default_rng(config.seed), 4_000), config.vocab_size)
    sizes = config.model_dump(include={"vision_width", "vision_depth", "text_width", "text_depth"})
    return tokenizer, make_model(make_config(tokenizer, **sizes), config.seed)


def train(trainer: Trainer, scenes: Scenes, checkpoint: Path) -> None:
    """Run the remaining steps, with a line of mean losses on stderr every 50."""
    config, started, saved = trainer.config, time.monotonic(), time.monotonic()
    first_step, recent = trainer.step, []
    while trainer.step < trainer.total_steps:
        recent.append(trainer.train_step(scenes))
        if trainer.step % 50 == 0 or trainer.step == trainer.total_steps:
            names = recent[-1]
            means = "  ".join(f"{n} {np.mean([r[n] for r in recent if n in r]):.3f}" for n in names)
            rate = (trainer.step - first_step) * config.images_per_step / (time.monotonic() - started)
            print(
                f"step {trainer.step}/{trainer.total_steps}  {rate:.0f} images/s  {means}",
                file=sys.stderr,
                flush=True,
            )
            recent = []
        if time.monotonic() - saved > config.checkpoint_every_s:
            trainer.save_checkpoint(checkpoint)
            saved = time.monotonic()


def run(config: JudgeTraining) -> dict:
    """Draw, train, save, measure. Returns {"model", "parameters_m", "seconds", "figures"}.

    Raises UserError when `out` holds a model.
    """
    # Measuring starts an engine; its module is not needed for training.
    from lab.pretrain.judge.card import measure, write_card

    check_free(config.out)
    torch.set_num_threads(config.num_threads)
    work, started = Path(config.work), time.monotonic()
    scenes = make_scenes(config.num_scenes, config.seed, work, config.num_threads)
    heldout = make_scenes(config.num_heldout, config.seed + HELDOUT_SEED_OFFSET, work, config.num_threads)
    trainer = Trainer(config)
    trainer.load_checkpoint(work / "checkpoint.pt")
    train(trainer, scenes, work / "checkpoint.pt")
    folder = save(trainer.model, make_processor(trainer.tokenizer), config.out)
    command.save_config(config, folder)
    seconds = time.monotonic() - started
    parameters_m = sum(p.numel() for p in trainer.model.parameters()) / 1e6
    figures = measure(folder, heldout, config.seed)
    write_card(folder, config, parameters_m=parameters_m, seconds=seconds, figures=figures)
    return {"model": str(folder), "parameters_m": parameters_m, "seconds": seconds, "figures": figures}
