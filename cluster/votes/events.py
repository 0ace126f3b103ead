"""Rows of `feedback` as votes: which question a person answered, and how.

A person has one vote on a question, and the last one counts. The person is the column `client`.
"""

import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

from cluster.text_files import BLANKS

CRITERIA = ("accuracy", "aesthetics", "diversity")
SWAPPED = {"a": "b", "b": "a", "tie": "tie"}


class Results(NamedTuple):
    """The results of one system for a query."""

    image_ids: tuple[str, ...]
    system: str
    encoder: str


class Comparison(NamedTuple):
    """A blind comparison without its sides: criterion -> "a" (`first` is better), "b" or "tie"."""

    first: Results
    second: Results
    verdicts: dict[str, str]


def same_words(query: str) -> str:
    """The query in lower case, with single spaces and without format characters, which nobody sees."""
    visible = "".join(char for char in query if unicodedata.category(char) != "Cf")
    return BLANKS.sub(" ", visible.lower()).strip()


def same_words_sql(text: str) -> str:
    """SQL expression that is equal for two texts, each a column or a literal, if their `same_words` are.

    Compare it only with itself: the database knows letters and format characters of newer Unicode versions.
    """
    visible = rf"regexp_replace({text}, '\p{{Cf}}', '', 'g')"
    return f"btrim(regexp_replace(lower({visible}), '{BLANKS.pattern}', ' ', 'g'))"


def comparison(event: Mapping[str, Any]) -> Comparison:
    """The comparison of a row of kind `blind`; swapping the sides gives the same one."""
    a = Results(tuple(event["image_ids"]), event["system"], event["encoder"])
    b = Results(tuple(event["other_image_ids"]), event["other_system"], event["other_encoder"])
    given = {name: event[name] for name in CRITERIA if event[name]}
    if b < a:
        return Comparison(b, a, {name: SWAPPED[verdict] for name, verdict in given.items()})
    return Comparison(a, b, given)


def blind_question(event: Mapping[str, Any]) -> tuple:
    """What a row of kind `blind` asks: which of two encoders is better for a query.

    It does not depend on the number of results, on filters, or on the names of the systems. A search by an
    image alone has no words, so its results stand for them.
    """
    first, second, _ = comparison(event)
    words = same_words(event["query"]) or (first.image_ids, second.image_ids)
    return words, frozenset((first.encoder, second.encoder))
