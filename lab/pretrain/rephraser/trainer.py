"""The training of the mini rephraser: a Qwen2-architecture model, first on copying, then on chats."""

import json
import math
import time

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from actors.rephraser import MODEL_STYLES, prompt
from cluster import terminal
from lab.pretrain.rephraser.config import PretrainRephraserConfig
from lab.pretrain.rephraser.tokenizer import END, PAD, token_id, train_tokenizer
from lab.pretrain.rephraser.training_batches import TrainingBatches, answer_loss, copy_loss
from lab.pretrain.rephraser.training_chats import answer, draw_query

# Added to the seed, so that chats, copied tokens and the tokenizer's corpus have separate random streams.
CHATS_SEED_OFFSET, COPY_SEED_OFFSET = 1, 2
STEPS_PER_LINE, RECENT_STEPS = 50, 25


def make_model(config: PretrainRephraserConfig, tokenizer: PreTrainedTokenizerBase) -> Qwen2ForCausalLM:
    """A model for the tokenizer, with seeded random weights."""
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
        eos_token_id=token_id(tokenizer, END),
        pad_token_id=token_id(tokenizer, PAD),
    )
    return Qwen2ForCausalLM(architecture)


def initial_model(config: PretrainRephraserConfig) -> tuple[PreTrainedTokenizerBase, Qwen2ForCausalLM]:
    """A new tokenizer and model, or those of `init`; the model in fp32."""
    if config.init:
        tokenizer = AutoTokenizer.from_pretrained(config.init)
        return tokenizer, Qwen2ForCausalLM.from_pretrained(config.init, dtype=torch.float32)
    tokenizer = train_tokenizer(tokenizer_corpus(config.seed), config.vocab_size)
    return tokenizer, make_model(config, tokenizer)


def tokenizer_corpus(seed: int, num_texts: int = 20_000) -> list[str]:
    """Texts to fit the tokenizer on: the prompts, and queries and answers in every style."""
    rng = np.random.default_rng(seed)
    # Prompts are repeated, so that their words become one or two tokens each and prompts are short.
    prompts = [message["content"] for style in MODEL_STYLES for message in prompt("", style)]
    texts = prompts * (num_texts // 50)
    for index in range(num_texts):
        query = draw_query(rng)
        texts.append(json.dumps(query.text, ensure_ascii=False))
        texts.append(answer(rng, query, MODEL_STYLES[index % len(MODEL_STYLES)]))
    return texts


def learning_rate_factor(step: int, config: PretrainRephraserConfig) -> float:
    """Linear warm-up; then the peak until the chats begin, and a cosine decay to 0.1 over them."""
    if step < config.num_warmup_steps:
        return (step + 1) / config.num_warmup_steps
    done = max(0, step - config.num_copy_steps) / max(1, config.num_steps)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done)))


def is_copy_step(step: int, config: PretrainRephraserConfig) -> bool:
    """Whether a step trains on random tokens to copy instead of chats."""
    chat_step = step - config.num_copy_steps
    if chat_step < 0:
        return True
    return config.copy_every is not None and chat_step % config.copy_every == config.copy_every - 1


def train(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, config: PretrainRephraserConfig
) -> float:
    """Train in place; returns the mean loss of the last chat steps, nats per token."""
    batches = TrainingBatches(tokenizer, batch_size=config.batch_size, seed=config.seed + CHATS_SEED_OFFSET)
    rng = np.random.default_rng(config.seed + COPY_SEED_OFFSET)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, config))
    log = LossLog(config.num_copy_steps + config.num_steps)
    for step in range(log.num_steps):
        copies = is_copy_step(step, config)
        with torch.autocast("cpu", torch.bfloat16):
            loss = copy_loss(model, rng, config.batch_size) if copies else answer_loss(model, *batches.draw())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        log.add("copying" if copies else "answers", loss.item())
    return log.recent_mean("answers")


class LossLog:
    """The losses of all steps by kind; prints their recent means to stderr."""

    def __init__(self, num_steps: int):
        self.num_steps = num_steps
        self.step = 0
        self.losses: dict[str, list[float]] = {"copying": [], "answers": []}
        self.started = time.monotonic()

    def recent_mean(self, kind: str) -> float:
        """Mean of the last steps of a kind, NaN without any."""
        recent = self.losses[kind][-RECENT_STEPS:]
        return float(np.mean(recent)) if recent else float("nan")

    def add(self, kind: str, loss: float) -> None:
        """Add the loss of one step."""
        self.losses[kind].append(loss)
        self.step += 1
        if self.step % STEPS_PER_LINE == 0:
            means = "  ".join(f"{kind} {self.recent_mean(kind):.3f}" for kind in self.losses)
            seconds = time.monotonic() - self.started
            terminal.say(f"step {self.step}/{self.num_steps}  {means}  {seconds:.0f} s")
