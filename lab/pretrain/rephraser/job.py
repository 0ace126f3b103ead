"""`kallos pretrain rephraser`: trains the mini language model that rephrases queries, on two CPU cores.

    kallos pretrain rephraser --out runs/pretrain/rephraser
    kallos pretrain rephraser --measure models/mini/rephraser

Synthetic chats (`rephraser_data.py`: the very prompts of `actors/rephraser.py`, the studio's phrases as
answers) -> a byte-level BPE and a Qwen2-architecture causal model in Hugging Face format, with its card.
The loss is that of the answer's tokens alone. Seeded: one config gives one checkpoint on one machine.
The second form trains nothing: it measures a checkpoint and rewrites the figures in its card.
"""

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from actors.rephraser import MODEL_STYLES, prompt
from cluster import command
from cluster.errors import UserError
from lab.pretrain.folder import check_free
from lab.pretrain.rephraser.batches import Batches, answer_loss, copy_loss, trained_queries
from lab.pretrain.rephraser.card import figures_text, rewrite_figures, write_card
from lab.pretrain.rephraser.config import PretrainRephraserConfig
from lab.pretrain.rephraser.data import answer, draw_query
from lab.pretrain.rephraser.figures import measure
from lab.pretrain.rephraser.queries import same
from lab.pretrain.rephraser.tokenizer import train_tokenizer

# Added to the seed for the chats: the tokenizer's corpus has the seed itself.
BATCHES_SEED = 1


def new_model(config: PretrainRephraserConfig, tokenizer: PreTrainedTokenizerBase) -> Qwen2ForCausalLM:
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


def start(config: PretrainRephraserConfig) -> tuple[PreTrainedTokenizerBase, Qwen2ForCausalLM]:
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


def schedule(step: int, config: PretrainRephraserConfig) -> float:
    """Factor on the learning rate: linear warm-up, then cosine decay to 0.1 over the chats."""
    if step < config.num_warmup_steps:
        return (step + 1) / config.num_warmup_steps
    done = max(0, step - config.num_copy_steps) / max(1, config.num_steps)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done)))


def copies(step: int, config: PretrainRephraserConfig) -> bool:
    """Whether a step repeats random tokens instead of answering chats."""
    place = step - config.num_copy_steps
    return place < 0 or (config.copy_every is not None and place % config.copy_every == config.copy_every - 1)


def train(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, config: PretrainRephraserConfig) -> float:
    """Trains in place; returns the mean loss of the last 25 steps that answered chats, nats per token."""
    batches = Batches(tokenizer, batch_size=config.batch_size, seed=config.seed + BATCHES_SEED)
    rng = np.random.default_rng(config.seed + 2)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay
    )
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, config))
    progress = Progress(config.num_copy_steps + config.num_steps)
    for step in range(config.num_copy_steps + config.num_steps):
        with torch.autocast("cpu", torch.bfloat16):
            copying = copies(step, config)
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


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, config: PretrainRephraserConfig) -> None:
    """Weights in bf16, tokenizer with its chat template, resolved config."""
    model.to(torch.bfloat16).save_pretrained(config.out)
    tokenizer.save_pretrained(config.out)
    command.save_config(config, config.out)


def trained_on(folder: str | Path) -> set[str]:
    """Every query (in the form of `same`) that the checkpoint in the folder was trained on, and the
    checkpoint that it went on from if that still lies where it lay.

    Drawn again from the config beside the weights. Raises UserError when the folder has none.
    """
    path = Path(folder) / "resolved_config.yaml"
    if not path.exists():
        raise UserError(f"the folder {str(folder)!r} holds no checkpoint with its resolved_config.yaml.")
    config = PretrainRephraserConfig(**yaml.safe_load(path.read_text(encoding="utf-8")))
    own = trained_queries(
        num_steps=config.num_steps, batch_size=config.batch_size, seed=config.seed + BATCHES_SEED
    )
    earlier = config.init and Path(config.init, path.name).exists()
    before = trained_on(config.init) if earlier else set()
    return {same(text) for text in own} | before


def measured(folder: str | Path, config: PretrainRephraserConfig) -> tuple[dict, str]:
    """The counts of `measure` on the checkpoint in the folder, and the card's text on them."""
    asked = {"num_queries": config.num_eval_queries, "seed": config.seed}
    evaluation = measure(folder, **asked, trained=trained_on(folder))
    return evaluation, figures_text(evaluation, **asked)


def run(config: PretrainRephraserConfig) -> dict:
    """Trains, saves and measures, or measures alone.

    Raises UserError when `out` already holds a model, or when the folder to measure holds none.
    """
    if config.measure:
        evaluation, figures = measured(config.measure, config)
        rewrite_figures(config.measure, figures)
        return {"measured": config.measure, "evaluation": evaluation}
    check_free(config.out)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    # Processor time: on a busy machine the clock says nothing of what training costs.
    started = time.process_time()
    tokenizer, model = start(config)
    loss = train(model, tokenizer, config)
    seconds, num_parameters = time.process_time() - started, sum(w.numel() for w in model.parameters())
    save(model, tokenizer, config)
    evaluation, figures = measured(config.out, config)
    facts = {"num_parameters": f"{num_parameters:,}", "loss": f"{loss:.3f}", "seconds": f"{seconds:.0f}"}
    write_card(config.out, {**config.model_dump(), **facts}, figures)
    return {
        "out": config.out,
        "num_parameters": num_parameters,
        "loss": loss,
        "seconds": seconds,
        "evaluation": evaluation,
    }
