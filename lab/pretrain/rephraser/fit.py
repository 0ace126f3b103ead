"""Whether what a rephrased query adds fits what was asked for: a check in words, without a model.

What counts as an expectation is the studio's vocabulary of good photographs (`GOOD_PHRASES`). It fits when
none of these holds:

- it names a light that contradicts the light of the query (`CONTRADICTED`), or golden hour light within
  doors where the query does not itself speak of that hour;
- it speaks of the horizon where there is none: within doors, in a still life, or of a subject that is at
  home there and that the query puts nowhere else;
- it is a word of a bad photograph (`BAD_PHRASES`).
"""

import re
from dataclasses import dataclass

from lab.pretrain.rephraser.queries import INDOOR, Asked
from lab.studio.words import BAD_PHRASES, GOOD_PHRASES

# The lights of a query that cannot be had together with the expectation.
CONTRADICTED: dict[str, frozenset[str]] = {
    "golden hour light": frozenset({"dusk", "mist", "night", "midday", "overcast"}),
    "dramatic light": frozenset({"mist", "overcast"}),
    "soft light": frozenset({"midday"}),
}
GOOD = frozenset(phrase for phrases in GOOD_PHRASES.values() for phrase in phrases)
BAD = frozenset(phrase for phrases in BAD_PHRASES.values() for phrase in phrases)
LONGEST = max(len(phrase.split()) for phrase in GOOD | BAD)
# Words that a sentence needs between the query and its expectations, and that show nothing.
JOINERS = frozenset({"in", "with", "and", "a", "the", "of"})


@dataclass(frozen=True)
class Checked:
    """What is in a rephrased text.

    keeps_subject: every noun of the query stands in it whole. fitting, unfitting: the expectations added that
    fit and that do not, each once, in their order. foreign: words that are neither the query's nor an
    expectation's, in their order.
    """

    keeps_subject: bool
    fitting: tuple[str, ...]
    unfitting: tuple[str, ...]
    foreign: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether at least two expectations that fit were added, and none that does not."""
        return len(self.fitting) >= 2 and not self.unfitting


def check(asked: Asked, rephrased: str) -> Checked:
    """What a composed text keeps of the query and adds to it; "" (no answer) keeps and adds nothing."""
    said, rest = split(words(rephrased))
    asked_for, _ = split(words(asked.text))
    added = [phrase for phrase in dict.fromkeys(said) if phrase not in asked_for]
    known = {*words(asked.text), *JOINERS}
    return Checked(
        keeps_subject=all(stands_in(noun, rephrased) for noun in asked.nouns),
        fitting=tuple(phrase for phrase in added if fits(phrase, asked)),
        unfitting=tuple(phrase for phrase in added if not fits(phrase, asked)),
        foreign=tuple(word for word in rest if word not in known),
    )


def fits(phrase: str, asked: Asked) -> bool:
    """Whether an expectation (of `GOOD` or `BAD`) suits the query, by the rules above."""
    if phrase in BAD or asked.light in CONTRADICTED.get(phrase, ()):
        return False
    if asked.scene != INDOOR:
        return True
    return "horizon" not in phrase and (phrase != "golden hour light" or asked.light == "sunset")


def stands_in(noun: str, text: str) -> bool:
    """Whether the noun's words stand in the text, side by side and whole, whatever the case."""
    return f" {' '.join(words(noun))} " in f" {' '.join(words(text))} "


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def split(text: list[str]) -> tuple[list[str], list[str]]:
    """(known phrases, other words) of a text, in order; the longest phrase that begins at a word is taken."""
    phrases, rest, place = [], [], 0
    while place < len(text):
        for length in range(LONGEST, 0, -1):
            phrase = " ".join(text[place : place + length])
            if phrase in GOOD or phrase in BAD:
                phrases.append(phrase)
                place += length
                break
        else:
            rest.append(text[place])
            place += 1
    return phrases, rest
