"""Queries that the mini rephraser never trained on, of every kind it is measured on.

A kind is a maker `(rng) -> Asked`: what is typed, and what is known of it, so that an answer can be checked.
"""

from collections.abc import Callable, Set
from dataclasses import dataclass

import numpy as np

from lab.pretrain.rephraser import world_words
from lab.pretrain.rephraser.data import SCENE_OF_GROUP, SCENE_OF_SETTING, made_up_word, misspelt, pick
from lab.studio.captions import sample_query
from lab.studio.latents import Latents, sample_latents
from lab.studio.words import COLOURS, INDOOR_SETTINGS, LIGHTS, SETTINGS, SUBJECTS, Subject

INDOOR = "indoor"
# A maker draws from a finite lexicon: what it cannot find in this many draws a query, it does not have.
DRAWS_A_QUERY = 100


@dataclass(frozen=True)
class Asked:
    """A query and what is known of it.

    nouns: its subjects as they are typed, misspelt where they are misspelt. scene: where it is set, else
    where its subject is at home (a value of `SCENE_OF_SETTING`), "unknown" for a made-up subject. light: the
    one that it names (a key of `LIGHTS`), "" for none.
    """

    text: str
    nouns: tuple[str, ...]
    scene: str
    light: str = ""


def home(subject: Subject) -> str:
    """The scene in which a subject of the studio is at home."""
    return SCENE_OF_SETTING[subject.settings[0]]


def plain(rng: np.random.Generator) -> Asked:
    """What `captions.sample_query` types: a subject, often alone, else with its colour, place or light."""
    return understood(sample_query(rng))


def understood(text: str) -> Asked:
    """A query of `sample_query`, read back: [colour] noun [place] [light].

    Raises ValueError for a text that names no subject of the studio.
    """
    setting = next((name for name, said in SETTINGS.items() if text.endswith(f" {said[0]}")), "")
    light = next((name for name, said in LIGHTS.items() if text.endswith(f" {said[0]}")), "")
    end = SETTINGS[setting][0] if setting else LIGHTS[light][0] if light else ""
    noun = text.removesuffix(f" {end}")
    first, _, rest = noun.partition(" ")
    noun = rest if first in COLOURS else noun
    subject = next((s for s in SUBJECTS.values() if noun in (s.name, *s.synonyms)), None)
    if subject is None:
        raise ValueError(f"the query {text!r} names no subject of the studio")
    return Asked(text, (noun,), SCENE_OF_SETTING[setting] if setting else home(subject), light)


def word_order(rng: np.random.Generator) -> Asked:
    """Attributes where they are seldom typed: before the subject with an article between, before it as a bare
    noun, before it with a comma, or a colour behind it."""
    scene = sample_latents(rng)
    noun, place, light = SUBJECTS[scene.subject].name, SETTINGS[scene.setting], LIGHTS[scene.light]
    named = f"a {scene.colour} {noun}" if rng.random() < 0.5 else f"the {noun}"
    form = rng.integers(5)
    if form == 0:
        return Asked(f"{pick(rng, light[:3])} {named}", (noun,), home(SUBJECTS[scene.subject]), scene.light)
    if form == 1:
        return Asked(f"{pick(rng, light[3:])} {noun}", (noun,), home(SUBJECTS[scene.subject]), scene.light)
    if form == 2:
        return Asked(f"{pick(rng, place[3:])} {noun}", (noun,), SCENE_OF_SETTING[scene.setting])
    if form == 3:
        return Asked(f"{pick(rng, place[:2])}, {noun}", (noun,), SCENE_OF_SETTING[scene.setting])
    return Asked(f"{noun}, {scene.colour}, {place[0]}", (noun,), SCENE_OF_SETTING[scene.setting])


def typo(rng: np.random.Generator) -> Asked:
    """A plain query one word of whose subject has a letter swapped with the next, dropped or doubled."""
    while True:
        asked = plain(rng)
        (noun,) = asked.nouns
        parts = noun.split()
        place = int(rng.integers(len(parts)))
        wrong = " ".join([*parts[:place], misspelt(rng, parts[place]), *parts[place + 1 :]])
        if wrong != noun:  # short words stay, and so do two equal letters swapped
            return Asked(asked.text.replace(noun, wrong), (wrong,), asked.scene, asked.light)


def plural(rng: np.random.Generator) -> Asked:
    """Several of a subject, with or without a count and a colour, sometimes with a place or a light."""
    scene = sample_latents(rng)
    subject = SUBJECTS[scene.subject]
    counted = pick(rng, ("", "", "two ", "three ", "many ", "some "))
    colour = f"{scene.colour} " if rng.random() < 0.3 else ""
    text = f"{counted}{colour}{subject.plural}"
    return placed(rng, text, (subject.plural,), scene, share=0.6)


def two_subjects(rng: np.random.Generator) -> Asked:
    """Two different subjects of the studio that a scene can hold, half of them with that scene's place."""
    scene = sample_latents(rng)
    first = SUBJECTS[scene.subject]
    others = [
        other
        for other in SUBJECTS.values()
        if other != first and scene.setting in other.settings and is_home(other) == is_home(first)
    ]
    if not others:
        return two_subjects(rng)
    nouns = first.name, pick(rng, [other.name for other in others])
    form = pick(rng, ("{} and {}", "{} with {}", "{} next to {}"))
    text = form.format(*(with_article(noun) for noun in nouns))
    return placed(rng, text, nouns, scene, share=0.6)


def is_home(subject: Subject) -> bool:
    return subject.settings[0] in INDOOR_SETTINGS


def with_article(noun: str) -> str:
    """The noun behind "a" or "an"."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def placed(
    rng: np.random.Generator, text: str, nouns: tuple[str, ...], scene: Latents, *, share: float
) -> Asked:
    """The text with the scene's place or, half as often, its light behind it; `share` of them have one."""
    kind = rng.random() / share
    if kind < 2 / 3:
        return Asked(f"{text} {SETTINGS[scene.setting][0]}", nouns, SCENE_OF_SETTING[scene.setting])
    at_home = home(SUBJECTS[scene.subject])
    if kind < 1:
        return Asked(f"{text} {LIGHTS[scene.light][0]}", nouns, at_home, scene.light)
    return Asked(text, nouns, at_home)


def everyday(rng: np.random.Generator) -> Asked:
    """A noun outside the studio's lexicon that training kept back, with or without a quality and a place that
    it kept back as well."""
    group = pick(rng, list(SCENE_OF_GROUP))
    noun = pick(rng, world_words.words(group, held_out=True))
    quality = f"{pick(rng, world_words.qualifiers(held_out=True))} " if rng.random() < 0.4 else ""
    return away(rng, f"{quality}{noun}", noun, SCENE_OF_GROUP[group])


def made_up(rng: np.random.Generator) -> Asked:
    """One or two words that nobody has seen, sometimes in another script, sometimes with a place."""
    noun = " ".join(made_up_word(rng) for _ in range(rng.integers(1, 3)))
    return away(rng, noun, noun, "unknown")


def away(rng: np.random.Generator, text: str, noun: str, scene: str) -> Asked:
    """The text, a third of the time with a place that training kept back, a sixth with a light."""
    kind = rng.random()
    if kind < 1 / 6:
        return Asked(
            f"{text} {pick(rng, world_words.split(world_words.OUTDOOR_PLACES, held_out=True))}",
            (noun,),
            "wide",
        )
    if kind < 1 / 3:
        return Asked(
            f"{text} {pick(rng, world_words.split(world_words.INDOOR_PLACES, held_out=True))}",
            (noun,),
            INDOOR,
        )
    if kind < 1 / 2:
        light = pick(rng, list(LIGHTS))
        return Asked(f"{text} {LIGHTS[light][0]}", (noun,), scene, light)
    return Asked(text, (noun,), scene)


KINDS: dict[str, Callable[[np.random.Generator], Asked]] = {
    "plain": plain,
    "word order": word_order,
    "typo": typo,
    "plural": plural,
    "two subjects": two_subjects,
    "everyday": everyday,
    "made up": made_up,
}


def same(text: str) -> str:
    """What two queries share that differ in nothing but case and spaces."""
    return " ".join(text.lower().split())


def unseen(kind: str, num_queries: int, seed: int, trained: Set[str] = frozenset()) -> list[Asked]:
    """Distinct seeded queries of a kind (a key of `KINDS`), none of which is in `trained` (see `same`).

    Raises:
        ValueError: the kind has fewer such queries than asked for.
    """
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    found: dict[str, Asked] = {}
    for _ in range(DRAWS_A_QUERY * num_queries):
        if len(found) == num_queries:
            return list(found.values())
        asked = KINDS[kind](rng)
        if same(asked.text) not in trained:
            found.setdefault(same(asked.text), asked)
    raise ValueError(f"num_queries={num_queries}: only {len(found)} untrained queries of the kind {kind!r}")
