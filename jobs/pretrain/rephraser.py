"""`kallos pretrain rephraser`: trains the mini language model that rephrases queries, on two CPU cores.

    python -m jobs.pretrain rephraser --out runs/pretrain/rephraser

Synthetic chats (`rephraser_data.py`: the very prompts of `actors/rephraser.py`, the studio's phrases as
answers) -> a byte-level BPE and a Qwen2-architecture causal model in Hugging Face format, with its card.
The loss is that of the answer's tokens alone. Seeded: one config gives one checkpoint on one machine.
"""

import json
import math
import sys
import time
from pathlib import Path
from string import Template

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from actors.rephraser import MODEL_STYLES, prompt
from cluster.errors import UserError
from jobs import command
from jobs.pretrain.rephraser_batches import Batches, answer_loss, copy_loss
from jobs.pretrain.rephraser_data import answer, draw_query
from jobs.pretrain.rephraser_figures import evaluate, table_rows
from jobs.pretrain.rephraser_tokenizer import train_tokenizer


class Config(BaseModel):
    """How the mini rephraser is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: str = Field("runs/pretrain/rephraser", description="new folder for the checkpoint")
    seed: int = Field(0, description="seed of data, initial weights and order")
    vocab_size: int = Field(2048, ge=300, description="tokens of the byte-level BPE, special ones included")
    hidden_size: int = Field(192, ge=32, description="width of the model")
    num_layers: int = Field(4, ge=1, description="transformer blocks")
    num_heads: int = Field(6, ge=1, description="attention heads")
    num_kv_heads: int = Field(2, ge=1, description="key and value heads")
    intermediate_size: int = Field(512, ge=32, description="width inside the MLP")
    init: str = Field("", description="folder of a checkpoint to go on from, empty = a new model")
    num_copy_steps: int = Field(700, ge=0, description="optimizer steps that repeat random tokens, at first")
    num_steps: int = Field(1300, ge=0, description="optimizer steps on chats, after those")
    batch_size: int = Field(64, ge=1, description="chats per step, all in one prompt style")
    learning_rate: float = Field(2e-3, gt=0, description="AdamW's peak step size, cosine decay to a tenth")
    num_warmup_steps: int = Field(100, ge=1, description="steps of linear warm-up")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's decoupled decay")
    num_threads: int = Field(
        1, ge=0, description="torch threads, 0 = torch's own; one wastes least on a busy machine"
    )
    num_eval_queries: int = Field(300, ge=1, description="held-out queries asked in every style for the card")


def new_model(config: Config, tokenizer: PreTrainedTokenizerBase) -> Qwen2ForCausalLM:
    """A randomly initialised model for that tokenizer, seeded."""
    torch.manual_seed(config.seed)
    architecture = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(architecture)


def start(config: Config) -> tuple[PreTrainedTokenizerBase, Qwen2ForCausalLM]:
    """A new tokenizer and model, or those of `init`; the model in fp32."""
    if config.init:
        tokenizer = AutoTokenizer.from_pretrained(config.init)
        return tokenizer, Qwen2ForCausalLM.from_pretrained(config.init, dtype=torch.float32)
    tokenizer = train_tokenizer(corpus(config.seed), config.vocab_size)
    return tokenizer, new_model(config, tokenizer)


def corpus(seed: int, num_texts: int = 20_000) -> list[str]:
    """Texts to fit the tokenizer on: prompts and answers of random queries in every style."""
    rng = np.random.default_rng(seed)
    # As often as their words deserve: each of them then is a token or two, and prompts are short.
    asked = [message["content"] for style in MODEL_STYLES for message in prompt("", style)]
    texts = asked * (num_texts // 50)
    for place in range(num_texts):
        query = draw_query(rng)
        texts.append(json.dumps(query.text, ensure_ascii=False))
        texts.append(answer(rng, query, MODEL_STYLES[place % len(MODEL_STYLES)]))
    return texts


def schedule(step: int, config: Config) -> float:
    """Factor on the learning rate: linear warm-up, then cosine decay to 0.1 over the chats."""
    if step < config.num_warmup_steps:
        return (step + 1) / config.num_warmup_steps
    done = max(0, step - config.num_copy_steps) / max(1, config.num_steps)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done)))


def train(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, config: Config) -> float:
    """Trains in place; returns the mean loss of the last 50 steps, nats per token."""
    batches = Batches(tokenizer, batch_size=config.batch_size, seed=config.seed + 1)
    rng = np.random.default_rng(config.seed + 2)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay
    )
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, config))
    progress = Progress(config.num_copy_steps + config.num_steps)
    for step in range(config.num_copy_steps + config.num_steps):
        with torch.autocast("cpu", torch.bfloat16):
            copying = step < config.num_copy_steps
            if copying:
                loss = copy_loss(model, rng, config.batch_size)
            else:
                loss = answer_loss(model, *batches.draw())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rates.step()
        progress.add("copying" if copying else "answers", loss.item())
    return progress.recent("answers")


class Progress:
    """Losses so far, by kind, told on stderr every 50 steps."""

    def __init__(self, num_steps: int):
        self.num_steps = num_steps
        self.step = 0
        self.losses: dict[str, list[float]] = {"copying": [], "answers": []}
        self.started = time.monotonic()

    def recent(self, kind: str) -> float:
        """Mean of the last 25, NaN before the first."""
        return float(np.mean(self.losses[kind][-25:])) if self.losses[kind] else float("nan")

    def add(self, kind: str, loss: float) -> None:
        """One more step of that kind."""
        self.losses[kind].append(loss)
        self.step += 1
        if self.step % 50 == 0:
            recent = "  ".join(f"{kind} {self.recent(kind):.3f}" for kind in self.losses)
            seconds = time.monotonic() - self.started
            print(
                f"step {self.step}/{self.num_steps}  {recent}  {seconds:.0f} s", file=sys.stderr, flush=True
            )


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, config: Config, report: dict) -> None:
    """Weights in bf16, tokenizer with its chat template, resolved config and card."""
    folder = Path(config.out)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    command.save_config(config, folder)
    card = Template((Path(__file__).parent / "rephraser_card.md").read_text(encoding="utf-8"))
    (folder / "README.md").write_text(card.substitute(card_values(config, report)), encoding="utf-8")


def card_values(config: Config, report: dict) -> dict[str, str]:
    """The card's figures as text."""
    return {
        **{name: str(value) for name, value in config.model_dump().items()},
        "num_parameters": f"{report['num_parameters']:,}",
        "loss": f"{report['loss']:.3f}",
        "seconds": f"{report['seconds']:.0f}",
        "rows": table_rows(report["evaluation"]),
    }


def run(config: Config) -> dict:
    """Trains, evaluates, saves. Raises UserError when `out` already holds a model."""
    if (Path(config.out) / "config.json").exists():
        raise UserError(f"the folder {config.out!r} already holds a model: choose a new folder for --out.")
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    started = time.monotonic()
    tokenizer, model = start(config)
    loss = train(model, tokenizer, config)
    model.eval()
    report = {
        "out": config.out,
        "num_parameters": sum(weight.numel() for weight in model.parameters()),
        "loss": loss,
        "seconds": time.monotonic() - started,
        "evaluation": evaluate(model, tokenizer, num_queries=config.num_eval_queries, seed=config.seed),
    }
    save(model, tokenizer, config, report)
    return report


def main(argv: list[str] | None = None) -> None:
    command.main(Config, run, argv)


if __name__ == "__main__":
    main()
