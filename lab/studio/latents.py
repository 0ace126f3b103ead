"""The latents of a studio scene, its true beauty, and its true accuracy for a query.

The latents are drawn from one seeded generator. A hidden `skill` of an imaginary photographer correlates all
aspects, as in real collections: who focuses well tends to compose well.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lab.studio.words import (
    ASPECTS,
    COLOUR_SYNONYMS,
    COLOURS,
    COMPANIONS,
    INDOOR_SETTINGS,
    LIGHT_APPEAL,
    LIGHTS,
    OUTDOOR_COMPANIONS,
    SETTINGS,
    SUBJECTS,
)

# Weight of each aspect in the true beauty, chosen for the studio; the sum is 1.
AESTHETIC_WEIGHTS: dict[str, float] = {
    "light": 0.20,
    "focus": 0.19,
    "palette": 0.15,
    "composition": 0.13,
    "exposure": 0.13,
    "clutter": 0.10,
    "level": 0.05,
    "grain": 0.05,
}
assert set(AESTHETIC_WEIGHTS) == set(ASPECTS)


@dataclass(frozen=True)
class Latents:
    """One scene. `light` is a key of `LIGHTS`; the aspects from `composition` on are in [0, 1], 1 is best."""

    subject: str
    colour: str
    count: int
    setting: str
    light: str
    companion: str
    place: str
    composition: float
    focus: float
    exposure: float
    palette: float
    clutter: float
    level: float
    grain: float
    scenery_seed: int

    def aspect(self, name: str) -> float:
        """The value of one of `ASPECTS`, in [0, 1]."""
        return LIGHT_APPEAL[self.light] if name == "light" else getattr(self, name)


def sample_latents(rng: np.random.Generator, subject: str = "") -> Latents:
    """Draw one scene, with a given subject if `subject` is not ""."""
    skill = rng.uniform(0.0, 1.0)
    chosen = SUBJECTS[subject or str(rng.choice(list(SUBJECTS)))]
    lights = list(LIGHTS)
    odds = np.exp(2.0 * (skill - 0.5) * np.array([LIGHT_APPEAL[light] for light in lights]))
    setting = str(rng.choice(chosen.settings))
    indoors = setting in INDOOR_SETTINGS
    aspects = {name: float(np.clip(rng.normal(skill, 0.28), 0.0, 1.0)) for name in ASPECTS if name != "light"}
    return Latents(
        subject=chosen.name,
        colour=str(rng.choice(list(COLOURS))),
        count=int(rng.choice([1, 2, 3], p=[0.7, 0.18, 0.12])),
        setting=setting,
        light=str(rng.choice(lights, p=odds / odds.sum())),
        companion=str(
            rng.choice([name for name in COMPANIONS if not (indoors and name in OUTDOOR_COMPANIONS)])
        ),
        place=str(rng.choice(["left", "centre", "right"])),
        scenery_seed=int(rng.integers(2**31)),
        **aspects,
    )


def true_aesthetics(latents: Latents) -> float:
    """The true beauty of a scene, in [0, 1].

    It is a logistic of the weighted mean of the aspects (`AESTHETIC_WEIGHTS`), which spreads scenes over the
    whole interval.
    """
    mean = sum(weight * latents.aspect(name) for name, weight in AESTHETIC_WEIGHTS.items())
    return float(1.0 / (1.0 + np.exp(-7.0 * (mean - 0.52))))


@dataclass(frozen=True)
class ParsedQuery:
    """The subjects and attributes that a query names; an empty field names nothing."""

    subjects: frozenset[str] = frozenset()
    colour: str = ""
    setting: str = ""
    light: str = ""
    count: int = 0


def _phrases(table: dict[str, tuple[str, ...]]) -> dict[str, str]:
    return {phrase: name for name, phrases in table.items() for phrase in (name, *phrases)}


_SUBJECT_PHRASES = {
    phrase: subject.name
    for subject in SUBJECTS.values()
    for word in (subject.name, *subject.synonyms)
    for phrase in (word, f"{word}s", subject.plural)
}
_COLOUR_PHRASES = _phrases(COLOUR_SYNONYMS)
_SETTING_PHRASES = _phrases(SETTINGS)
_LIGHT_PHRASES = _phrases(LIGHTS)
_COMPANION_PHRASES = {phrase: name for name, phrase in COMPANIONS.items() if phrase}
_COUNT_PHRASES = {"two": 2, "pair of": 2, "three": 3}


def _take(text: str, phrases: Mapping) -> tuple[list, str]:
    """The values of the phrases in the text, longest phrase first, and the text without them."""
    found = []
    for phrase in sorted(phrases, key=len, reverse=True):
        pattern = rf"\b{re.escape(phrase)}\b"
        if re.search(pattern, text):
            found.append(phrases[phrase])
            text = re.sub(pattern, " ", text)
    return found, text


@lru_cache(maxsize=4096)  # called for each image of a query and each rater
def parse_query(text: str) -> ParsedQuery:
    """Parse a query in the words of the studio; unknown words are ignored.

    Companions are read first, and lights before colours, so that "white clouds" and "blue hour" name no
    colour.
    """
    text = re.sub(r"[^a-z ]+", " ", text.lower())
    _, text = _take(text, _COMPANION_PHRASES)
    lights, text = _take(text, _LIGHT_PHRASES)
    settings, text = _take(text, _SETTING_PHRASES)
    counts, text = _take(text, _COUNT_PHRASES)
    colours, text = _take(text, _COLOUR_PHRASES)
    subjects, _ = _take(text, _SUBJECT_PHRASES)
    return ParsedQuery(
        subjects=frozenset(subjects),
        colour=next(iter(colours), ""),
        setting=next(iter(settings), ""),
        light=next(iter(lights), ""),
        count=next(iter(counts), 0),
    )


def accuracy(query: ParsedQuery, latents: Latents) -> float:
    """How well a scene matches a query, in [0, 1].

    0 for another subject; otherwise 0.5, plus 0.5 times the share of the named attributes that match. 1 only
    when everything that the query names matches.
    """
    if query.subjects and latents.subject not in query.subjects:
        return 0.0
    matches = [
        getattr(query, field) == getattr(latents, field)
        for field in ("colour", "setting", "light", "count")
        if getattr(query, field)
    ]
    return 1.0 if not matches else 0.5 + 0.5 * sum(matches) / len(matches)


def true_accuracy(query: str, latents: Latents) -> float:
    """`accuracy` of a scene for the text of a query, in [0, 1]."""
    return accuracy(parse_query(query), latents)


def is_accurate(query: str, latents: Latents) -> bool:
    """Whether the scene shows everything that the query names."""
    return true_accuracy(query, latents) == 1.0
