"""Queries that the mini judge is trained and measured on, and what each query says of a scene."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lab.pretrain.judge.scenes import CLASSES
from lab.studio.latents import Latents, accuracy, parse_query, true_aesthetics
from lab.studio.words import COLOUR_SYNONYMS, COUNT_WORDS, LIGHTS, SETTINGS, SUBJECTS

STOP_WORDS = frozenset(("a", "an", "at", "by", "in", "of", "on", "the", "under"))
ATTRIBUTES = ("colour", "setting", "light", "count")
QUERY_PARTS = ("subject", *ATTRIBUTES)
# For each of `QUERY_PARTS`, what a query says of a scene.
NOT_NAMED, MATCHES, DIFFERS = range(3)


def accuracy_value(query: str, latents: Latents) -> float:
    """Accuracy that the judge learns to give, in [0, 1]: cubed, so that one wrong attribute is below 0.5."""
    return accuracy(parse_query(query), latents) ** 3


def overall_value(query: str, latents: Latents) -> float:
    """Accurate and beautiful, in [0, 1]; an ugly accurate image still beats a beautiful inaccurate one."""
    return accuracy_value(query, latents) * (0.25 + 0.75 * true_aesthetics(latents))


def matching_query(latents: Latents, rng: np.random.Generator) -> str:
    """A query that the scene matches exactly: its subject and up to four of its attributes."""
    return " ".join(matching_query_parts(latents, rng).values())


def matching_query_parts(latents: Latents, rng: np.random.Generator, required: str = "") -> dict[str, str]:
    """The phrases of a matching query in their order, by what they name: a part, or "article".

    required: one of `QUERY_PARTS` that is always named, "" for none.
    """
    named = {name for name in ATTRIBUTES if rng.random() < 0.22} | {required}
    subject, parts = SUBJECTS[latents.subject], {}
    if latents.count > 1 and "count" in named:
        parts["count"], noun = _pick(rng, COUNT_WORDS[latents.count]), subject.plural
    else:
        if rng.random() < 0.4:
            parts["article"] = "a"
        noun = subject.name if rng.random() < 0.7 else _pick(rng, (*subject.synonyms, subject.plural))
    if "colour" in named:
        parts["colour"] = _pick(rng, (latents.colour,) * 4 + COLOUR_SYNONYMS[latents.colour])
    parts["subject"] = noun
    if "setting" in named:
        parts["setting"] = _pick(rng, SETTINGS[latents.setting][:3])
    if "light" in named:
        parts["light"] = _pick(rng, LIGHTS[latents.light][:3])
    if rng.random() < 0.1:
        first = next(iter(parts))
        parts[first] = parts[first].capitalize()
    return parts


def near_miss_query(latents: Latents, rng: np.random.Generator) -> str:
    """A query that the scene matches in all but one part: a hard negative."""
    return " ".join(near_miss_query_parts(latents, rng).values())


def near_miss_query_parts(latents: Latents, rng: np.random.Generator) -> dict[str, str]:
    """The phrases of a near-miss query, as `matching_query_parts` returns them."""
    name = str(rng.choice([*ATTRIBUTES, "subject"], p=[0.3, 0.25, 0.2, 0.1, 0.15]))
    others = [value for value in CLASSES[name] if value != getattr(latents, name)]
    other = replace(latents, **{name: others[rng.integers(len(others))]})
    return matching_query_parts(other, rng, required=name)


def descriptive_words(latents: Latents, rng: np.random.Generator) -> str:
    """Two words or phrases for everything that a query can name in the scene, without stop words."""
    subject = SUBJECTS[latents.subject]
    nouns = (subject.name, *subject.synonyms, subject.plural)
    colours = (latents.colour, *COLOUR_SYNONYMS[latents.colour])
    options = (
        nouns,
        colours,
        SETTINGS[latents.setting],
        LIGHTS[latents.light],
        COUNT_WORDS[latents.count][:1],
    )
    words = [word for choice in options for _ in range(2) for word in _pick(rng, choice).split()]
    return " " + " ".join(word for word in words if word not in STOP_WORDS)


def part_matches(query: str, latents: Latents) -> tuple[int, ...]:
    """For each of `QUERY_PARTS`: `NOT_NAMED`, or whether what the query names matches the scene."""
    parsed = parse_query(query)
    named = [bool(parsed.subjects), *(bool(getattr(parsed, name)) for name in ATTRIBUTES)]
    equal = [latents.subject in parsed.subjects]
    equal += [getattr(parsed, name) == getattr(latents, name) for name in ATTRIBUTES]
    return tuple(
        (MATCHES if is_equal else DIFFERS) if is_named else NOT_NAMED
        for is_named, is_equal in zip(named, equal, strict=True)
    )


def phrase_truths(
    parts: dict[str, str], shown: Sequence[Latents]
) -> tuple[tuple[str, tuple[bool, ...]], ...]:
    """The phrases of the query that name something, and for each whether it is true of each scene shown."""
    query = " ".join(parts.values())
    of_scenes = [dict(zip(QUERY_PARTS, part_matches(query, scene), strict=True)) for scene in shown]
    return tuple(
        (phrase, tuple(matches[name] == MATCHES for matches in of_scenes))
        for name, phrase in parts.items()
        if name in QUERY_PARTS and of_scenes[0][name] != NOT_NAMED
    )


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
