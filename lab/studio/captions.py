"""Captions of studio scenes, and queries for them.

Web captions imitate those of the web: most name only the subject, some add quality words that fit loosely,
and some are wrong. An encoder trained on them knows what quality words look like, but does not use that
knowledge for a plain query: this is the misalignment that the paper describes.
"""

from collections.abc import Callable, Sequence

import numpy as np

from lab.studio.latents import Latents, sample_latents, true_aesthetics
from lab.studio.words import (
    ASPECTS,
    BAD_PHRASES,
    COLOUR_SYNONYMS,
    COMPANIONS,
    COUNT_WORDS,
    GOOD_PHRASES,
    LIGHTS,
    PLACES,
    SETTINGS,
    SUBJECTS,
)

WRONG_CAPTION_SHARE = 0.06


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return str(options[int(rng.integers(len(options)))])


def _chance(rng: np.random.Generator, probability: float) -> bool:
    return bool(rng.random() < probability)


def _subject_words(rng: np.random.Generator, latents: Latents) -> str:
    subject = SUBJECTS[latents.subject]
    if latents.count > 1:
        counted = _pick(rng, COUNT_WORDS[latents.count]) + " " if _chance(rng, 0.6) else ""
        return counted + "{colour}" + subject.plural
    word = subject.name if _chance(rng, 0.75) else _pick(rng, subject.synonyms)
    return ("a " if _chance(rng, 0.5) else "") + "{colour}" + word


def plain_caption(latents: Latents, rng: np.random.Generator) -> str:
    """A caption that names the subject, and sometimes its colour, setting or light."""
    words = _subject_words(rng, latents)
    colour = latents.colour if _chance(rng, 0.85) else _pick(rng, COLOUR_SYNONYMS[latents.colour])
    text = words.format(colour=f"{colour} " if _chance(rng, 0.4) else "")
    if _chance(rng, 0.35):
        text += " " + _pick(rng, SETTINGS[latents.setting][:3])
    if _chance(rng, 0.25):
        text += " " + _pick(rng, LIGHTS[latents.light][:3])
    return text


def quality_words(latents: Latents, rng: np.random.Generator) -> list[str]:
    """One to four phrases about the quality of the image; at least three in four are true."""
    aspects = rng.permutation([*ASPECTS, "overall"])[: rng.integers(1, 5)]
    words = []
    for aspect in aspects:
        value = true_aesthetics(latents) if aspect == "overall" else latents.aspect(aspect)
        good = value > 0.5 if _chance(rng, 0.75 + 0.2 * abs(value - 0.5)) else value <= 0.5
        words.append(_pick(rng, (GOOD_PHRASES if good else BAD_PHRASES)[aspect]))
    return words


def web_caption(latents: Latents, rng: np.random.Generator) -> str:
    """A caption like those of the web: very good and very bad images get more quality words."""
    if _chance(rng, WRONG_CAPTION_SHARE):
        return plain_caption(sample_latents(rng), rng)
    text = plain_caption(latents, rng)
    if _chance(rng, 0.15 + 0.35 * abs(2 * true_aesthetics(latents) - 1)):
        text += ", " + ", ".join(quality_words(latents, rng))
    return text


def detailed_caption(latents: Latents) -> str:
    """Subject, colour, count, place in the frame, companion, setting, light: nearly unique in a gallery."""
    subject = SUBJECTS[latents.subject]
    noun = subject.name if latents.count == 1 else subject.plural
    companion = f" with {COMPANIONS[latents.companion]}" if COMPANIONS[latents.companion] else ""
    count = (
        ("an" if latents.colour == "orange" else "a") if latents.count == 1 else COUNT_WORDS[latents.count][0]
    )
    return (
        f"{count} {latents.colour} {noun} {PLACES[latents.place]}{companion} "
        f"{SETTINGS[latents.setting][0]} {LIGHTS[latents.light][0]}"
    )


def training_caption(latents: Latents, rng: np.random.Generator) -> str:
    """A detailed caption in three of ten cases, else a web caption."""
    return detailed_caption(latents) if _chance(rng, 0.3) else web_caption(latents, rng)


def sample_query(rng: np.random.Generator) -> str:
    """A query as people type it: a subject, often alone, else with one attribute that it can have."""
    latents = sample_latents(rng)
    subject = SUBJECTS[latents.subject]
    noun = subject.name if _chance(rng, 0.7) else _pick(rng, subject.synonyms)
    kind = rng.choice(["subject", "colour", "setting", "light"], p=[0.4, 0.2, 0.2, 0.2])
    if kind == "colour":
        return f"{latents.colour} {noun}"
    if kind == "setting":
        return f"{noun} {SETTINGS[latents.setting][0]}"
    if kind == "light":
        return f"{noun} {LIGHTS[latents.light][0]}"
    return noun


def sample_queries(
    rng: np.random.Generator, num_queries: int, accept: Callable[[str], bool] = lambda query: True
) -> list[str]:
    """Distinct queries for which `accept` is true, in the order drawn.

    Raises ValueError when the lexicon has fewer such queries.
    """
    queries: list[str] = []
    tried: set[str] = set()
    for _ in range(200 * num_queries):
        if len(queries) == num_queries:
            return queries
        query = sample_query(rng)
        if query not in tried and accept(query):
            queries.append(query)
        tried.add(query)
    raise ValueError(f"num_queries={num_queries}: the studio has only {len(queries)} such queries")
