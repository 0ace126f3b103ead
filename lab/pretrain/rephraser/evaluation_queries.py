"""Queries on which the mini rephraser is measured, of several kinds, none of them a training query.

A kind is a function from a random generator to an `EvaluationQuery`: a query together with the facts about it
that allow an answer to be checked.
"""

from collections.abc import Callable, Set
from dataclasses import dataclass

import numpy as np

from lab.pretrain.rephraser import everyday_words
from lab.pretrain.rephraser.training_chats import (
    SCENE_OF_GROUP,
    SCENE_OF_SETTING,
    made_up_word,
    misspelt,
    pick,
)
from lab.studio.captions import sample_query
from lab.studio.latents import Latents, sample_latents
from lab.studio.words import COLOURS, INDOOR_SETTINGS, LIGHTS, SETTINGS, SUBJECTS, Subject

INDOOR = "indoor"
# A kind has a finite vocabulary: it counts as exhausted after this many draws per query.
DRAWS_PER_QUERY = 100


@dataclass(frozen=True)
class EvaluationQuery:
    """A query and the facts about it.

    nouns: its subjects as typed, with their misspellings. scene: a value of `SCENE_OF_SETTING`: that of the
    place that the query names, else that of its subject, "unknown" for a made-up subject. light: the light
    that it names (a key of `LIGHTS`), "" for none.
    """

    text: str
    nouns: tuple[str, ...]
    scene: str
    light: str = ""


def usual_scene(subject: Subject) -> str:
    """The scene in which a subject of the studio is usually found."""
    return SCENE_OF_SETTING[subject.settings[0]]


def plain(rng: np.random.Generator) -> EvaluationQuery:
    """A query of `captions.sample_query`: a subject, often alone, else with its colour, place or light."""
    return parse_plain(sample_query(rng))


def parse_plain(text: str) -> EvaluationQuery:
    """Parse a query of `sample_query`: [colour] noun [place] [light].

    Raises ValueError for a text that names no subject of the studio.
    """
    setting = next((name for name, phrases in SETTINGS.items() if text.endswith(f" {phrases[0]}")), "")
    light = next((name for name, phrases in LIGHTS.items() if text.endswith(f" {phrases[0]}")), "")
    end = SETTINGS[setting][0] if setting else LIGHTS[light][0] if light else ""
    noun = text.removesuffix(f" {end}")
    first, _, rest = noun.partition(" ")
    noun = rest if first in COLOURS else noun
    subject = next((s for s in SUBJECTS.values() if noun in (s.name, *s.synonyms)), None)
    if subject is None:
        raise ValueError(f"the query {text!r} names no subject of the studio")
    scene = SCENE_OF_SETTING[setting] if setting else usual_scene(subject)
    return EvaluationQuery(text, (noun,), scene, light)


def word_order(rng: np.random.Generator) -> EvaluationQuery:
    """Attributes in unusual positions: light or place before the subject, or colour after it."""
    latents = sample_latents(rng)
    noun, place, light = SUBJECTS[latents.subject].name, SETTINGS[latents.setting], LIGHTS[latents.light]
    at_usual, at_setting = usual_scene(SUBJECTS[latents.subject]), SCENE_OF_SETTING[latents.setting]
    with_colour = f"a {latents.colour} {noun}" if rng.random() < 0.5 else f"the {noun}"
    form = rng.integers(5)
    if form == 0:
        return EvaluationQuery(f"{pick(rng, light[:3])} {with_colour}", (noun,), at_usual, latents.light)
    if form == 1:
        return EvaluationQuery(f"{pick(rng, light[3:])} {noun}", (noun,), at_usual, latents.light)
    if form == 2:
        return EvaluationQuery(f"{pick(rng, place[3:])} {noun}", (noun,), at_setting)
    if form == 3:
        return EvaluationQuery(f"{pick(rng, place[:2])}, {noun}", (noun,), at_setting)
    return EvaluationQuery(f"{noun}, {latents.colour}, {place[0]}", (noun,), at_setting)


def typo(rng: np.random.Generator) -> EvaluationQuery:
    """A plain query with one letter of its subject dropped, doubled, or swapped with the next."""
    while True:
        query = plain(rng)
        (noun,) = query.nouns
        parts = noun.split()
        index = int(rng.integers(len(parts)))
        wrong = " ".join([*parts[:index], misspelt(rng, parts[index]), *parts[index + 1 :]])
        if wrong != noun:  # short words, and two equal letters swapped, do not change
            return EvaluationQuery(query.text.replace(noun, wrong), (wrong,), query.scene, query.light)


def plural(rng: np.random.Generator) -> EvaluationQuery:
    """A subject in the plural, sometimes with a count, a colour, a place or a light."""
    latents = sample_latents(rng)
    subject = SUBJECTS[latents.subject]
    count = pick(rng, ("", "", "two ", "three ", "many ", "some "))
    colour = f"{latents.colour} " if rng.random() < 0.3 else ""
    return with_place_or_light(rng, f"{count}{colour}{subject.plural}", (subject.plural,), latents, share=0.6)


def two_subjects(rng: np.random.Generator) -> EvaluationQuery:
    """Two different subjects that can occur in one scene, some with the place or the light of that scene."""
    latents = sample_latents(rng)
    first = SUBJECTS[latents.subject]
    others = [
        other
        for other in SUBJECTS.values()
        if other != first and latents.setting in other.settings and is_indoor(other) == is_indoor(first)
    ]
    if not others:
        return two_subjects(rng)
    nouns = first.name, pick(rng, [other.name for other in others])
    form = pick(rng, ("{} and {}", "{} with {}", "{} next to {}"))
    text = form.format(*(with_article(noun) for noun in nouns))
    return with_place_or_light(rng, text, nouns, latents, share=0.6)


def is_indoor(subject: Subject) -> bool:
    """Whether a subject is usually found indoors."""
    return subject.settings[0] in INDOOR_SETTINGS


def with_article(noun: str) -> str:
    """The noun after "a" or "an"."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def with_place_or_light(
    rng: np.random.Generator, text: str, nouns: tuple[str, ...], latents: Latents, *, share: float
) -> EvaluationQuery:
    """The text, in a `share` of the cases with the place of the scene or, half as often, its light."""
    kind = rng.random() / share
    if kind < 2 / 3:
        scene = SCENE_OF_SETTING[latents.setting]
        return EvaluationQuery(f"{text} {SETTINGS[latents.setting][0]}", nouns, scene)
    scene = usual_scene(SUBJECTS[latents.subject])
    if kind < 1:
        return EvaluationQuery(f"{text} {LIGHTS[latents.light][0]}", nouns, scene, latents.light)
    return EvaluationQuery(text, nouns, scene)


def everyday(rng: np.random.Generator) -> EvaluationQuery:
    """A held-out noun that is not in the studio's lexicon, some with a held-out adjective and place."""
    group = pick(rng, list(SCENE_OF_GROUP))
    noun = pick(rng, everyday_words.group_words(group, held_out=True))
    adjective = f"{pick(rng, everyday_words.qualifiers(held_out=True))} " if rng.random() < 0.4 else ""
    return with_held_out_place(rng, f"{adjective}{noun}", noun, SCENE_OF_GROUP[group])


def made_up(rng: np.random.Generator) -> EvaluationQuery:
    """One or two words that do not exist, sometimes in another script, sometimes with a place."""
    noun = " ".join(made_up_word(rng) for _ in range(rng.integers(1, 3)))
    return with_held_out_place(rng, noun, noun, "unknown")


def with_held_out_place(rng: np.random.Generator, text: str, noun: str, scene: str) -> EvaluationQuery:
    """The text, in a third of the cases with a held-out place, in a sixth with a light."""
    kind = rng.random()
    if kind < 1 / 6:
        place = pick(rng, everyday_words.split(everyday_words.OUTDOOR_PLACES, held_out=True))
        return EvaluationQuery(f"{text} {place}", (noun,), "wide")
    if kind < 1 / 3:
        place = pick(rng, everyday_words.split(everyday_words.INDOOR_PLACES, held_out=True))
        return EvaluationQuery(f"{text} {place}", (noun,), INDOOR)
    if kind < 1 / 2:
        light = pick(rng, list(LIGHTS))
        return EvaluationQuery(f"{text} {LIGHTS[light][0]}", (noun,), scene, light)
    return EvaluationQuery(text, (noun,), scene)


KINDS: dict[str, Callable[[np.random.Generator], EvaluationQuery]] = {
    "plain": plain,
    "word order": word_order,
    "typo": typo,
    "plural": plural,
    "two subjects": two_subjects,
    "everyday": everyday,
    "made up": made_up,
}


def normalised(text: str) -> str:
    """A query in lower case, with single spaces."""
    return " ".join(text.lower().split())


def untrained_queries(
    kind: str, num_queries: int, seed: int, trained: Set[str] = frozenset()
) -> list[EvaluationQuery]:
    """Distinct seeded queries of a kind (a key of `KINDS`), none of them in `trained` (normalised texts).

    Raises ValueError when the kind has fewer such queries.
    """
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    found: dict[str, EvaluationQuery] = {}
    for _ in range(DRAWS_PER_QUERY * num_queries):
        if len(found) == num_queries:
            return list(found.values())
        query = KINDS[kind](rng)
        if normalised(query.text) not in trained:
            found.setdefault(normalised(query.text), query)
    raise ValueError(f"num_queries={num_queries}: only {len(found)} untrained queries of the kind {kind!r}")
