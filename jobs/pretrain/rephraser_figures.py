"""The mini rephraser's figures, on queries whose words training never saw."""

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from actors.rephraser import MODEL_STYLES, UnparsableAnswer, compose, keeps_query, parse
from jobs.pretrain.rephraser_batches import chat_ids
from jobs.pretrain.rephraser_data import LIGHT_SUITS, SUITS, Query, draw_query
from jobs.studio.words import GOOD_PHRASES

SENTENCE_STYLES = ("detail", "reorg")
FIGURES = ("parses", "adds_two_or_more", "light_suits", "keeps_query")


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


def evaluate(
    model, tokenizer: PreTrainedTokenizerBase, *, num_queries: int, seed: int
) -> dict[str, dict[str, float]]:
    """Per style, over queries of held-out words: the share of answers that parse, add at least two phrases of
    the studio's, name a light that suits, and (sentence styles) themselves keep every word of the query."""
    rng = np.random.default_rng(seed + 1_000_003)
    queries = [draw_query(rng, held_out=True) for _ in range(num_queries)]
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
        return dict.fromkeys(FIGURES if style in SENTENCE_STYLES else FIGURES[:3], False)
    rephrased = compose(query.text, style, content)
    known = {phrase for phrases in GOOD_PHRASES.values() for phrase in phrases}
    added = sum(phrase in rephrased for phrase in known)
    row = {
        "parses": True,
        "adds_two_or_more": added >= 2,
        "light_suits": light_suits(query, rephrased),
    }
    if style in SENTENCE_STYLES:
        row["keeps_query"] = keeps_query(query.text, next(iter(content.values())))
    return row


def light_suits(query: Query, rephrased: str) -> bool:
    """Whether the text names no light but those that suit the query."""
    suited = {LIGHT_SUITS[query.light]} if query.light else set(SUITS[query.scene]["light"])
    named = {phrase for phrase in GOOD_PHRASES["light"] if phrase in rephrased}
    return named <= suited


def table_rows(evaluation: dict[str, dict[str, float]]) -> str:
    """The card's table, one style a line."""
    return "\n".join(
        f"| `{style}` | " + " | ".join(f"{row[name]:.3f}" if name in row else "-" for name in FIGURES) + " |"
        for style, row in evaluation.items()
    )
