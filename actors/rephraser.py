"""Rephrases a search query with explicit aesthetic expectations (step 1 of the method).

The subject stays; composition, light, colours, detail and mood are added. There are six styles. `original`
and `repeat` (the length control) need no model; the others ask a language model for compact JSON under a
grammar. An answer that does not parse is requested once more under a stricter grammar. If that fails too,
the row carries an error, never an invented text.
Source of the styles: arXiv 2406.09397, section on the LLM's rephrasing; the wording is ours.
"""

import json
import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from actors.engine import Engine, Reply, Request, generate_or_exit, make_engine
from cluster.errors import UserError
from cluster.profile import LanguageModel, Stage

STYLES = ("original", "repeat", "detail", "k_list", "kw_dict", "reorg")
MODEL_STYLES = ("detail", "k_list", "kw_dict", "reorg")
ASPECTS = ("light", "composition", "colours", "detail", "mood")
NUM_QUALITIES = 4
# A CLIP text tower reads 77 tokens, and its first words count most: the query comes first, the rest is short.
MAX_WORDS = 30
COPY_LIKENESS = 0.6  # difflib's ratio from which the beginning of a sentence counts as a garbled query

# `models/mini/rephraser` was trained on exactly these prompts, which also suit a 7 B model: after a change
# here, train it again.
ROLE = (
    "You rewrite image search queries so that they find beautiful photographs. Keep the subject, places and "
    "colours; add short visual qualities that suit them. Answer in English, as JSON."
)
TASKS = {
    "detail": "Describe the ideal photograph in one sentence that begins with the query: "
    '{"description":"..."}',
    "k_list": f"List {NUM_QUALITIES} qualities that make such a photograph beautiful: "
    '{"qualities":["...","..."]}',
    "kw_dict": "Give a few keywords for each aspect: {"
    + ",".join(f'"{aspect}":"..."' for aspect in ASPECTS)
    + "}",
    "reorg": 'Weave query, light, composition and mood into one sentence, query first: {"sentence":"..."}',
}
SENTENCE_KEYS = {"detail": "description", "reorg": "sentence"}

_PHRASE = {"type": "string"}
# The strict grammar allows a few plain letters only, so that the answer ends within its token limit.
_STRICT_PHRASE = {"type": "string", "pattern": "^[A-Za-z][A-Za-z ,'-]{2,38}$"}
_STRICT_SENTENCE = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9 ,.'-]{8,158}$"}
_STRICT_MAX_TOKENS = 320


class UnparsableAnswer(ValueError):
    """A model's answer that does not have the form of its style; the message says why."""


def prompt(query: str, style: str) -> list[dict[str, str]]:
    """The chat that asks for `query` in `style`. Raises UserError for a style that needs no model."""
    if style not in MODEL_STYLES:
        raise UserError(f"Style {style!r} uses no model: styles that do are {', '.join(MODEL_STYLES)}.")
    # Quoted, so that the query's words are the same tokens in the prompt as in the answer.
    task = f"{TASKS[style]}\nQuery: {json.dumps(query, ensure_ascii=False)}"
    return [{"role": "system", "content": ROLE}, {"role": "user", "content": task}]


def schema(style: str, strict: bool = False) -> dict[str, Any]:
    """JSON schema of the answer in `style`; `strict` also limits its letters and its length."""
    phrase = _STRICT_PHRASE if strict else _PHRASE
    if style == "kw_dict":
        properties = {aspect: phrase for aspect in ASPECTS}
    elif style == "k_list":
        items = {"type": "array", "items": phrase, "minItems": NUM_QUALITIES, "maxItems": NUM_QUALITIES}
        properties = {"qualities": items}
    else:
        properties = {SENTENCE_KEYS[style]: _STRICT_SENTENCE if strict else _PHRASE}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def parse(text: str, style: str) -> dict[str, Any]:
    """The JSON answer in `text`, which may be fenced or surrounded by words; its values are stripped.

    kw_dict -> {aspect: phrase}; k_list -> {"qualities": [2 to NUM_QUALITIES phrases]}; detail and reorg ->
    {"description" | "sentence": text}. Raises UnparsableAnswer when there is no JSON object, when a key is
    missing, or when a value is not text, is empty or too long, or is not in Latin letters.
    """
    found = re.search(r"\{.*\}", text, flags=re.DOTALL)
    if found is None:
        raise UnparsableAnswer(f"no complete JSON object in the answer {text[:80]!r}")
    try:
        answer = json.loads(found.group())
    except ValueError as error:
        raise UnparsableAnswer(f"the answer is not JSON ({error}): {text[:80]!r}") from None
    keys = schema(style)["required"]
    missing = [key for key in keys if key not in answer]
    if missing:
        raise UnparsableAnswer(f"the answer lacks {', '.join(missing)}: {text[:80]!r}")
    if style == "k_list":
        return {"qualities": _qualities(answer["qualities"])}
    longest = MAX_WORDS if style == "kw_dict" else 3 * MAX_WORDS
    return {key: _phrase(answer[key], key, longest) for key in keys}


def _qualities(values: Any) -> list[str]:
    if not isinstance(values, list) or len(values) < 2:
        raise UnparsableAnswer(f"qualities must be a list of at least 2, not {str(values)[:80]!r}")
    return [_phrase(value, "qualities", MAX_WORDS) for value in values[:NUM_QUALITIES]]


def _phrase(value: Any, key: str, longest: int) -> str:
    """`value` as one line of at most `longest` words, without a final full stop."""
    if not isinstance(value, str):
        raise UnparsableAnswer(f"{key} must be text, not {str(value)[:80]!r}")
    phrase = " ".join(value.split()).strip(" .,;")
    letters = [letter for letter in phrase if letter.isalpha()]
    if not letters:
        raise UnparsableAnswer(f"{key} is empty or has no words: {value[:80]!r}")
    if len(phrase.split()) > longest:
        raise UnparsableAnswer(f"{key} has more than {longest} words: {value[:80]!r}")
    # Encoders are trained on English captions: an answer in another script would only add noise.
    if sum(letter < "\u0250" for letter in letters) < 0.5 * len(letters):
        raise UnparsableAnswer(f"{key} is not in Latin letters: {value[:80]!r}")
    return phrase


def compose(query: str, style: str, answer: Mapping[str, Any]) -> str:
    """The rephrased query: the query first, then the expectations, in at most MAX_WORDS words.

    The query itself is never cut. If a sentence lacks a word of the query within that limit, the whole query
    comes first, followed by what the sentence adds. `answer` is the result of `parse`, {} for `original` and
    `repeat`.
    """
    query = " ".join(query.split())
    if style == "original":
        return query
    if style == "repeat":
        return f"{query}, {query}"
    if style in SENTENCE_KEYS:
        sentence = answer[SENTENCE_KEYS[style]]
        cut = _cut(sentence, query)
        return cut if keeps_query(query, cut) else _cut(f"{query}{_addition(query, sentence)}", query)
    phrases = answer["qualities"] if style == "k_list" else [answer[aspect] for aspect in ASPECTS]
    return _joined(query, phrases)


def keeps_query(query: str, text: str) -> bool:
    """Whether the text contains every word of the query, ignoring case."""
    return set(_words(query)) <= set(_words(text))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _joined(query: str, phrases: Sequence[str]) -> str:
    text = query
    for phrase in dict.fromkeys(phrases):
        longer = f"{text}, {phrase}"
        if len(longer.split()) <= MAX_WORDS:
            text = longer
    return text


def _addition(query: str, sentence: str) -> str:
    """The part of the sentence to append to the query, with the separator before it.

    Small models begin with a misspelt or altered query, which would search for something else. So the
    beginning that resembles the query most is dropped, and then every word up to "in", "with" or the length
    of the query.
    """
    words, num_query_words = sentence.split(), len(query.split())
    starts = [" ".join(words[:count]).lower() for count in range(1, num_query_words + 3)]
    likeness = [SequenceMatcher(None, query.lower(), start).ratio() for start in starts]
    if max(likeness) < COPY_LIKENESS:
        return f", {sentence}"
    begin = int(np.argmax(likeness)) + 1
    while begin < min(num_query_words, len(words)) and words[begin] not in ("in", "with"):
        begin += 1
    return f" {' '.join(words[begin:])}".rstrip()


def _cut(text: str, query: str) -> str:
    return " ".join(text.split()[: max(MAX_WORDS, len(query.split()))]).rstrip(",;")


def rephrase(engine: Engine, queries: Sequence[str], style: str) -> list[tuple[str, str]]:
    """(rephrased query, error) for each query: one of the two is "".

    Answers that do not parse are requested once more with the strict grammar.
    """
    results = _ask(engine, queries, style, strict=False)
    again = [index for index, (_, error) in enumerate(results) if error]
    if again:
        retried = _ask(engine, [queries[index] for index in again], style, strict=True)
        for index, result in zip(again, retried, strict=True):
            results[index] = result
    return results


def _ask(engine: Engine, queries: Sequence[str], style: str, strict: bool) -> list[tuple[str, str]]:
    grammar = schema(style, strict)
    max_tokens = _STRICT_MAX_TOKENS if strict else 0
    requests = [Request(prompt(query, style), schema=grammar, max_tokens=max_tokens) for query in queries]
    replies = generate_or_exit(engine, requests)
    return [_read(query, style, reply) for query, reply in zip(queries, replies, strict=True)]


def _read(query: str, style: str, reply: Reply) -> tuple[str, str]:
    if reply.error:
        return "", reply.error
    try:
        return compose(query, style, parse(reply.text, style)), ""
    except UnparsableAnswer as error:
        cut = "the answer was cut at its token limit; " if reply.finish_reason == "length" else ""
        return "", f"{cut}{error}"


class Rephraser:
    """Rephrases queries in one style. Only the styles of `MODEL_STYLES` load the language model."""

    def __init__(self, language_model: LanguageModel, style: str) -> None:
        self.style = style
        self.engine = make_engine(language_model) if style in MODEL_STYLES else None

    def rephrase(self, queries: Sequence[str]) -> list[tuple[str, str]]:
        """(rephrased query, error) for each query: one of the two is ""."""
        if self.engine is None:
            return [(compose(query, self.style, {}), "") for query in queries]
        return rephrase(self.engine, queries, self.style)


def rephraser_stage(model: LanguageModel, style: str) -> Stage:
    """The resources of a `Rephraser`: without a GPU where the style loads no language model."""
    return model.stage if style in MODEL_STYLES else model.stage.without_gpus()


class Rephrase(Rephraser):
    """Ray Data actor: batch with `query` -> adds `rephrased`, `style`, `rephrase_error` ("" for none).

    A row with an error has an empty `rephrased`.
    """

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = self.rephrase([str(query) for query in batch["query"]])
        return {
            **batch,
            "rephrased": np.array([text for text, _ in results], dtype=object),
            "style": np.array([self.style] * len(results), dtype=object),
            "rephrase_error": np.array([error for _, error in results], dtype=object),
        }
