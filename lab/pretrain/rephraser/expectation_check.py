"""Checks which expectations a rephrased query adds, and whether they suit the query. No model is involved.

Expectations are phrases that describe good or bad photographs (`GOOD_PHRASES`, `BAD_PHRASES`). One is
unsuitable if

- it names a light that contradicts the light of the query (`CONTRADICTED_LIGHTS`), or golden hour light
  indoors, unless the query itself names the sunset;
- it mentions the horizon indoors or in a still life; a subject that is usually found indoors counts as
  indoors unless the query names another place;
- it describes a bad photograph (`BAD_PHRASES`).
"""

import re
from dataclasses import dataclass

from lab.pretrain.rephraser.evaluation_queries import INDOOR, EvaluationQuery
from lab.studio.words import BAD_PHRASES, GOOD_PHRASES

# For a phrase about light, the lights of a query that exclude it.
CONTRADICTED_LIGHTS: dict[str, frozenset[str]] = {
    "golden hour light": frozenset({"dusk", "mist", "night", "midday", "overcast"}),
    "dramatic light": frozenset({"mist", "overcast"}),
    "soft light": frozenset({"midday"}),
}
GOOD = frozenset(phrase for phrases in GOOD_PHRASES.values() for phrase in phrases)
BAD = frozenset(phrase for phrases in BAD_PHRASES.values() for phrase in phrases)
MAX_PHRASE_WORDS = max(len(phrase.split()) for phrase in GOOD | BAD)
# Words that join the query and its expectations, without content of their own.
JOINING_WORDS = frozenset({"in", "with", "and", "a", "the", "of"})


@dataclass(frozen=True)
class CheckedText:
    """The parts of a rephrased query.

    keeps_subject: whether it contains every noun of the query. suitable, unsuitable: the added expectations
    of each kind, without repetition, in order. other_words: words that belong neither to the query nor to an
    expectation, in order.
    """

    keeps_subject: bool
    suitable: tuple[str, ...]
    unsuitable: tuple[str, ...]
    other_words: tuple[str, ...]

    @property
    def adds_suitable_only(self) -> bool:
        """Whether at least two suitable expectations were added, and no unsuitable one."""
        return len(self.suitable) >= 2 and not self.unsuitable


def check(query: EvaluationQuery, rephrased: str) -> CheckedText:
    """Split a rephrased query into its parts; "" (no answer) has none."""
    phrases, rest = split_phrases(words(rephrased))
    in_query, _ = split_phrases(words(query.text))
    added = [phrase for phrase in dict.fromkeys(phrases) if phrase not in in_query]
    known = {*words(query.text), *JOINING_WORDS}
    return CheckedText(
        keeps_subject=all(contains(rephrased, noun) for noun in query.nouns),
        suitable=tuple(phrase for phrase in added if is_suitable(phrase, query)),
        unsuitable=tuple(phrase for phrase in added if not is_suitable(phrase, query)),
        other_words=tuple(word for word in rest if word not in known),
    )


def is_suitable(phrase: str, query: EvaluationQuery) -> bool:
    """Whether an expectation (of `GOOD` or `BAD`) suits the query, by the rules of this module."""
    if phrase in BAD or query.light in CONTRADICTED_LIGHTS.get(phrase, ()):
        return False
    if query.scene != INDOOR:
        return True
    return "horizon" not in phrase and (phrase != "golden hour light" or query.light == "sunset")


def contains(text: str, noun: str) -> bool:
    """Whether the text contains the words of the noun, complete and adjacent; case is ignored."""
    return f" {' '.join(words(noun))} " in f" {' '.join(words(text))} "


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def split_phrases(text: list[str]) -> tuple[list[str], list[str]]:
    """(known phrases, other words) of a list of words, in order; the longest phrase at a word is chosen."""
    phrases, rest, start = [], [], 0
    while start < len(text):
        for length in range(MAX_PHRASE_WORDS, 0, -1):
            phrase = " ".join(text[start : start + length])
            if phrase in GOOD or phrase in BAD:
                phrases.append(phrase)
                start += length
                break
        else:
            rest.append(text[start])
            start += 1
    return phrases, rest
