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
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from actors.rephraser import MODEL_STYLES, UnparsableAnswer, compose, keeps_query, parse, prompt
from cluster.errors import UserError
from jobs import command
from jobs.pretrain.rephraser_data import LIGHT_SUITS, SUITS, Query, answer, draw_query
from jobs.pretrain.rephraser_tokenizer import END, train_tokenizer
from jobs.studio.words import GOOD_PHRASES

IGNORED = -100
BATCHES_AT_ONCE = 8


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
    num_steps: int = Field(1600, ge=0, description="optimizer steps")
    batch_size: int = Field(64, ge=1, description="chats per step, all in one prompt style")
    learning_rate: float = Field(2e-3, gt=0, description="AdamW's peak step size, cosine decay to a tenth")
    num_warmup_steps: int = Field(100, ge=1, description="steps of linear warm-up")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's decoupled decay")
    num_threads: int = Field(
        1, ge=0, description="torch threads, 0 = torch's own; one wastes least on a busy machine"
    )
    num_eval_queries: int = Field(300, ge=0, description="held-out queries asked in every style for the card")


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


def chat_ids(tokenizer: PreTrainedTokenizerBase, query: str, style: str) -> list[int]:
    """Token ids of the prompt, as the engine would make them, up to where the answer begins."""
    text = tokenizer.apply_chat_template(prompt(query, style), tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False)


def shared_prefix(tokenizer: PreTrainedTokenizerBase, style: str) -> list[int]:
    """The tokens with which every prompt of a style begins: they are run once a step, not once a chat."""
    one, other = chat_ids(tokenizer, "a", style), chat_ids(tokenizer, "(b", style)
    same = [left == right for left, right in zip(one, other, strict=False)]
    return one[: same.index(False)]


class Batches:
    """Endless seeded batches of chats, one style each, of about equal length: little padding."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: Config):
        self.tokenizer = tokenizer
        self.batch_size = config.batch_size
        self.rng = np.random.default_rng(config.seed + 1)
        self.prefixes = {style: shared_prefix(tokenizer, style) for style in MODEL_STYLES}
        self.ready: list[tuple[str, list[tuple[list[int], int]]]] = []

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """(prefix [1, P], inputs [B, S], labels [B, S]) int64: labels are the next token inside the answer,
        IGNORED elsewhere; inputs are padded on the right."""
        if not self.ready:
            self._refill()
        style, chats = self.ready.pop()
        longest = max(len(ids) for ids, _ in chats) - 1
        inputs = torch.full((len(chats), longest), self.tokenizer.pad_token_id)
        labels = torch.full((len(chats), longest), IGNORED)
        for row, (ids, num_asked) in enumerate(chats):
            inputs[row, : len(ids) - 1] = torch.tensor(ids[:-1])
            labels[row, num_asked - 1 : len(ids) - 1] = torch.tensor(ids[num_asked:])
        return torch.tensor([self.prefixes[style]]), inputs, labels

    def _refill(self) -> None:
        """Draws BATCHES_AT_ONCE batches of each style, sorted by length and then shuffled."""
        for style, prefix in self.prefixes.items():
            chats = [self._chat(style, len(prefix)) for _ in range(self.batch_size * BATCHES_AT_ONCE)]
            chats.sort(key=lambda chat: len(chat[0]))
            for start in range(0, len(chats), self.batch_size):
                self.ready.append((style, chats[start : start + self.batch_size]))
        self.ready = [self.ready[place] for place in self.rng.permutation(len(self.ready))]

    def _chat(self, style: str, prefix_length: int) -> tuple[list[int], int]:
        """Token ids after the shared prefix, and how many of them belong to the prompt."""
        query = draw_query(self.rng)
        asked = chat_ids(self.tokenizer, query.text, style)[prefix_length:]
        said = self.tokenizer.encode(answer(self.rng, query, style) + END, add_special_tokens=False)
        return asked + said, len(asked)


def answer_loss(model: Qwen2ForCausalLM, prefix: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the answer's tokens, a scalar.

    The prefix goes through the model once and its keys and values serve the whole batch, gradients included.
    """
    cache = model.model(input_ids=prefix, use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(inputs))
    hidden = model.model(input_ids=inputs, past_key_values=cache, use_cache=True).last_hidden_state
    wanted = labels != IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[wanted]).float(), labels[wanted])


def schedule(step: int, config: Config) -> float:
    """Factor on the learning rate: linear warm-up, then cosine decay to 0.1."""
    if step < config.num_warmup_steps:
        return (step + 1) / config.num_warmup_steps
    done = (step - config.num_warmup_steps) / max(1, config.num_steps - config.num_warmup_steps)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done)))


def train(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, config: Config) -> float:
    """Trains in place; returns the mean loss of the last 50 steps, nats per token."""
    batches = Batches(tokenizer, config)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay
    )
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, config))
    losses: list[float] = []
    started = time.monotonic()
    for step in range(config.num_steps):
        with torch.autocast("cpu", torch.bfloat16):
            loss = answer_loss(model, *batches.draw())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rates.step()
        losses.append(loss.item())
        if step % 50 == 49:
            mean, seconds = float(np.mean(losses[-50:])), time.monotonic() - started
            print(
                f"step {step + 1}/{config.num_steps}  loss {mean:.4f}  {seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    return float(np.mean(losses[-50:])) if losses else float("nan")


@torch.no_grad()
def greedy(model, tokenizer: PreTrainedTokenizerBase, queries: list[str], style: str) -> list[str]:
    """The model's own answers, without any grammar."""
    prompts = [chat_ids(tokenizer, query, style) for query in queries]
    longest = max(len(ids) for ids in prompts)
    pad = tokenizer.pad_token_id
    inputs = torch.tensor([[pad] * (longest - len(ids)) + ids for ids in prompts])
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts])
    outputs = model.generate(input_ids=inputs, attention_mask=mask, max_new_tokens=128, do_sample=False)
    return tokenizer.batch_decode(outputs[:, longest:], skip_special_tokens=True)


def evaluate(model, tokenizer: PreTrainedTokenizerBase, config: Config) -> dict[str, dict[str, float]]:
    """Per style, over queries of held-out words: the share of answers that parse, add at least two phrases of
    the studio's, name a light that suits, and (sentence styles) themselves keep every word of the query."""
    rng = np.random.default_rng(config.seed + 1_000_003)
    queries = [draw_query(rng, held_out=True) for _ in range(config.num_eval_queries)]
    report = {}
    for style in MODEL_STYLES:
        answers = greedy(model, tokenizer, [query.text for query in queries], style)
        rows = [judged(query, text, style) for query, text in zip(queries, answers, strict=True)]
        report[style] = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return report


def judged(query: Query, text: str, style: str) -> dict[str, bool]:
    """What `evaluate` averages, for one answer."""
    try:
        content = parse(text, style)
    except UnparsableAnswer:
        names = ("parses", "adds_two_or_more", "light_suits", "keeps_query")
        return dict.fromkeys(names[: 4 if style in ("detail", "reorg") else 3], False)
    rephrased = compose(query.text, style, content)
    known = {phrase for phrases in GOOD_PHRASES.values() for phrase in phrases}
    added = sum(phrase in rephrased for phrase in known)
    row = {
        "parses": True,
        "adds_two_or_more": added >= 2,
        "light_suits": light_suits(query, rephrased),
    }
    if style in ("detail", "reorg"):
        row["keeps_query"] = keeps_query(query.text, next(iter(content.values())))
    return row


def light_suits(query: Query, rephrased: str) -> bool:
    """Whether the text names no light but those that suit the query."""
    suited = {LIGHT_SUITS[query.light]} if query.light else set(SUITS[query.scene]["light"])
    named = {phrase for phrase in GOOD_PHRASES["light"] if phrase in rephrased}
    return named <= suited


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
    names = ("parses", "adds_two_or_more", "light_suits", "keeps_query")
    rows = [
        f"| `{style}` | " + " | ".join(f"{row[name]:.3f}" if name in row else "-" for name in names) + " |"
        for style, row in report["evaluation"].items()
    ]
    return {
        **{name: str(value) for name, value in config.model_dump().items()},
        "num_parameters": f"{report['num_parameters']:,}",
        "loss": f"{report['loss']:.3f}",
        "seconds": f"{report['seconds']:.0f}",
        "rows": "\n".join(rows),
    }


def run(config: Config) -> dict:
    """Trains, evaluates, saves. Raises UserError when `out` already holds a model."""
    if (Path(config.out) / "config.json").exists():
        raise UserError(f"the folder {config.out!r} already holds a model: choose a new folder for --out.")
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    started = time.monotonic()
    tokenizer = train_tokenizer(corpus(config.seed), config.vocab_size)
    model = new_model(config, tokenizer)
    loss = train(model, tokenizer, config)
    model.eval()
    report = {
        "out": config.out,
        "num_parameters": sum(weight.numel() for weight in model.parameters()),
        "loss": loss,
        "seconds": time.monotonic() - started,
        "evaluation": evaluate(model, tokenizer, config) if config.num_eval_queries else {},
    }
    save(model, tokenizer, config, report)
    return report


def main(argv: list[str] | None = None) -> None:
    command.main(Config, run, argv)


if __name__ == "__main__":
    main()
