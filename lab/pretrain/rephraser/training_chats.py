"""Training chats of the mini rephraser: random queries, and their answers in each prompt style.

The words of a query come from the studio's lexicon, from everyday words outside it, or from random syllables,
so that the model learns to copy subjects it has never seen. The expectations in an answer are the studio's
own phrases (`GOOD_PHRASES`), chosen to suit the scene and the light that the query names.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actors.rephraser import ASPECTS, MAX_WORDS, NUM_QUALITIES
from lab.pretrain.rephraser import everyday_words
from lab.studio.words import COLOUR_SYNONYMS, COLOURS, COUNT_WORDS, LIGHTS, SETTINGS, SUBJECTS

# Phrases that suit a kind of scene, for each aspect: the first is the usual choice.
SUITABLE_PHRASES: dict[str, dict[str, tuple[str, ...]]] = {
    "wide": {
        "light": ("golden hour light", "dramatic light", "beautiful light"),
        "composition": ("rule of thirds, level horizon", "balanced composition, level horizon"),
        "colours": ("vivid colours", "rich colours"),
        "detail": ("sharp focus, fine detail", "crisp detail"),
        "mood": ("stunning", "masterpiece", "award winning photo"),
    },
    "built": {
        "light": ("golden hour light", "dramatic light"),
        "composition": ("well composed, straight horizon", "rule of thirds, uncluttered"),
        "colours": ("rich colours", "harmonious palette"),
        "detail": ("crisp detail, well exposed", "sharp focus"),
        "mood": ("award winning photo", "stunning"),
    },
    "close": {
        "light": ("soft light", "beautiful light"),
        "composition": ("rule of thirds, clean background", "balanced composition, uncluttered"),
        "colours": ("vivid colours", "harmonious palette"),
        "detail": ("tack sharp, fine detail", "sharp focus"),
        "mood": ("stunning", "professional photo"),
    },
    "indoor": {
        "light": ("soft light", "beautiful light"),
        "composition": ("balanced composition, clean background", "well composed, minimalist"),
        "colours": ("harmonious palette", "rich colours"),
        "detail": ("sharp focus, clean image", "crisp detail, balanced exposure"),
        "mood": ("professional photo", "beautiful"),
    },
    "unknown": {
        "light": ("beautiful light", "soft light"),
        "composition": ("rule of thirds, uncluttered", "well composed, clean background"),
        "colours": ("vivid colours", "rich colours"),
        "detail": ("sharp focus, fine detail", "tack sharp"),
        "mood": ("stunning", "beautiful"),
    },
}
PHRASE_FOR_LIGHT = {
    "sunset": "golden hour light", "dusk": "dramatic light", "mist": "soft light",
    "night": "dramatic light", "midday": "beautiful light", "overcast": "soft light",
}  # fmt: skip
USUAL_SHARE = 0.75  # share of the choices that are the usual one

SCENE_OF_GROUP = {
    "animal": "close", "outdoor": "wide", "building": "built", "vehicle": "built", "plant": "close",
    "food": "indoor", "object": "indoor", "people": "close",
}  # fmt: skip
SCENE_OF_SETTING = {
    "sea": "wide", "beach": "wide", "desert": "wide", "forest": "close", "mountains": "wide",
    "meadow": "close", "city": "built", "snow": "wide", "room": "indoor", "table": "indoor",
}  # fmt: skip
CLOSE_SUBJECTS = ("dog", "cat", "horse", "penguin", "butterfly", "tulip")
QUERY_FORMS = (
    "{}",
    "{}",
    "{}",
    "{}",
    "{}",
    "{}",
    "a photo of {}",
    "picture of {}",
    "{} photo",
    "best {} pictures",
)
PREPOSITIONS = ("in the", "in a", "on the", "on a", "by the", "at the", "near a", "under the")
SYLLABLE_STARTS = "b c d f g h j k l m n p r s t v w z br ch cl dr fl gr kr pl qu sh st th tr sw"
SYLLABLE_ENDS = "a e i o u ai ea ee oo ar er in on um el ock ist ant ill ong ush yx eft"
FOREIGN = "äöüßéèêçñåøœíóúабвгдежзиклмнопрстуяαβγδεζηθλμπσω東京山川海空花月火水木金土猫犬"


@dataclass(frozen=True)
class TrainingQuery:
    """A query, its kind of scene (a key of `SUITABLE_PHRASES`), and the light it names ("" for none)."""

    text: str
    scene: str
    light: str = ""


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One option, drawn uniformly."""
    return str(options[int(rng.integers(len(options)))])


def made_up_word(rng: np.random.Generator) -> str:
    """A word that does not exist: random syllables, or sometimes letters, digits or another script."""
    kind = rng.random()
    if kind < 0.12:
        return "".join(pick(rng, "abcdefghijklmnopqrstuvwxyz") for _ in range(rng.integers(2, 9)))
    if kind < 0.17:
        return "".join(pick(rng, FOREIGN) for _ in range(rng.integers(2, 7)))
    if kind < 0.2:
        return str(rng.integers(1, 3000))
    starts, ends = SYLLABLE_STARTS.split(), SYLLABLE_ENDS.split()
    parts = [pick(rng, starts) + pick(rng, ends) for _ in range(rng.integers(1, 4))]
    return "".join(parts) + (pick(rng, "bdgklmnprst") if rng.random() < 0.4 else "")


def _studio_noun(rng: np.random.Generator) -> tuple[str, str]:
    subject = SUBJECTS[pick(rng, list(SUBJECTS))]
    kind = rng.random()
    noun = subject.name if kind < 0.5 else subject.plural if kind < 0.7 else pick(rng, subject.synonyms)
    scene = "close" if subject.name in CLOSE_SUBJECTS else SCENE_OF_SETTING[subject.settings[0]]
    return noun, scene


def _everyday_noun(rng: np.random.Generator) -> tuple[str, str]:
    group = pick(rng, list(SCENE_OF_GROUP))
    noun = pick(rng, everyday_words.group_words(group, held_out=False))
    plural = rng.random() < 0.25 and not noun.endswith("s")
    return noun + "s" * plural, SCENE_OF_GROUP[group]


def draw_noun(rng: np.random.Generator) -> tuple[str, str]:
    """A noun and its scene."""
    kind = rng.random()
    if kind < 0.3:
        return _studio_noun(rng)
    if kind < 0.65:
        return _everyday_noun(rng)
    if kind < 0.75:
        return f"{made_up_word(rng)} {made_up_word(rng)}", "unknown"
    return made_up_word(rng), "unknown"


def _described(rng: np.random.Generator, noun: str) -> str:
    """The noun, sometimes with an article, a count, an adjective or a colour before it."""
    words = [noun]
    if rng.random() < 0.35:
        colour = pick(rng, list(COLOURS))
        words.insert(0, colour if rng.random() < 0.7 else pick(rng, COLOUR_SYNONYMS[colour]))
    if rng.random() < 0.3:
        words.insert(0, pick(rng, everyday_words.qualifiers(held_out=False)))
    if rng.random() < 0.3:
        words.insert(0, pick(rng, ("a", "the", "my", "one", *COUNT_WORDS[2], *COUNT_WORDS[3])))
    return " ".join(words)


def _place(rng: np.random.Generator) -> tuple[str, str]:
    kind = rng.random()
    if kind < 0.5:
        setting = pick(rng, list(SETTINGS))
        return pick(rng, SETTINGS[setting]), SCENE_OF_SETTING[setting]
    if kind < 0.65:
        return pick(rng, everyday_words.split(everyday_words.OUTDOOR_PLACES, held_out=False)), "wide"
    if kind < 0.8:
        return pick(rng, everyday_words.split(everyday_words.INDOOR_PLACES, held_out=False)), "indoor"
    # A made-up place may be a room, so a horizon cannot be expected.
    return f"{pick(rng, PREPOSITIONS)} {made_up_word(rng)}", "unknown"


def misspelt(rng: np.random.Generator, text: str) -> str:
    """The text with one letter dropped, doubled, or swapped with the next."""
    if len(text) < 4:
        return text
    at = int(rng.integers(1, len(text) - 1))
    middle = (text[at + 1] + text[at], text[at + 1], text[at] * 2 + text[at + 1])[rng.integers(3)]
    return text[:at] + middle + text[at + 2 :]


def draw_query(rng: np.random.Generator) -> TrainingQuery:
    """A query as people type it, without held-out words."""
    noun, scene = draw_noun(rng)
    parts = [_described(rng, noun)]
    if rng.random() < 0.2:
        other, other_scene = draw_noun(rng)
        parts += [pick(rng, ("and", "with", "near", "under", "on")), _described(rng, other)]
        scene = scene if scene == other_scene else "unknown"
    light = ""
    if rng.random() < 0.35:
        place, scene = _place(rng)
        parts.insert(0 if rng.random() < 0.35 else len(parts), place)
    if rng.random() < 0.35:
        light = pick(rng, list(LIGHTS))
        parts.insert(0 if rng.random() < 0.5 else len(parts), pick(rng, LIGHTS[light]))
    text = pick(rng, QUERY_FORMS).format(" ".join(parts))
    return TrainingQuery(_as_typed(rng, text), scene, light)


def _as_typed(rng: np.random.Generator, text: str) -> str:
    kind = rng.random()
    if kind < 0.08:
        text = misspelt(rng, text)
    elif kind < 0.12:
        text = text.title()
    elif kind < 0.14:
        text = text.upper()
    elif kind < 0.17:
        text = text.replace(" ", ", ", 1)
    return text.strip()


def expectations(rng: np.random.Generator, query: TrainingQuery) -> dict[str, str]:
    """A phrase for each aspect that suits the query."""
    chosen = {}
    for aspect, options in SUITABLE_PHRASES[query.scene].items():
        usual = len(options) == 1 or rng.random() < USUAL_SHARE
        chosen[aspect] = options[0] if usual else pick(rng, options[1:])
    if query.light:
        chosen["light"] = PHRASE_FOR_LIGHT[query.light]
    return chosen


def answer(rng: np.random.Generator, query: TrainingQuery, style: str) -> str:
    """The answer that the model learns to give, as compact JSON."""
    chosen = expectations(rng, query)
    if style == "kw_dict":
        content: dict = {aspect: chosen[aspect] for aspect in ASPECTS}
    elif style == "k_list":
        phrases = [phrase for aspect in ASPECTS for phrase in chosen[aspect].split(", ")]
        usual = rng.random() < USUAL_SHARE
        order = np.arange(len(phrases)) if usual else rng.permutation(len(phrases))
        order = sorted(order[:NUM_QUALITIES])
        content = {"qualities": [phrases[index] for index in order]}
    elif style == "detail":
        end = f"{chosen['composition']}, with {chosen['colours']}, {chosen['detail']}"
        content = {"description": _sentence(query.text, f"in {chosen['light']}, {end}")}
    else:
        end = f"{chosen['composition']}, {chosen['colours']}, {chosen['mood']}"
        content = {"sentence": _sentence(query.text, f"in {chosen['light']}, {end}")}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _sentence(query: str, expectations: str) -> str:
    """The query, followed by as many words of the expectations as `MAX_WORDS` allows."""
    words = f"{query} {expectations}".split()
    return " ".join(words[:MAX_WORDS]).rstrip(",")
