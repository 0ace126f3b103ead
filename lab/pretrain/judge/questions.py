"""What the small judge is asked: questions about studio scenes, and their true answers.

A scene's latents say how beautiful it is and whether it answers a query, so every question has a known
answer. Answers are soft: a rating of 3.7 is 30 % "3" and 70 % "4", a comparison is the logistic of the
difference in value.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from actors import judge
from lab.pretrain.judge.scenes import CLASSES
from lab.studio.captions import detailed_caption
from lab.studio.latents import Latents, accuracy, parse_query, sample_latents, true_aesthetics
from lab.studio.words import COLOUR_SYNONYMS, COUNT_WORDS, LIGHTS, SETTINGS, SUBJECTS

DESCRIBE = "Describe this picture."
# Of the pairs of a batch, the share compared by beauty, which is learned long before the rest.
AESTHETICS_SHARE = 0.25
STOP_WORDS = frozenset(("a", "an", "at", "by", "in", "of", "on", "the", "under"))
ATTRIBUTES = ("colour", "setting", "light", "count")
ASKED = ("subject", *ATTRIBUTES)


@dataclass(frozen=True)
class Question:
    """One prompt and its answer.

    images: positions of its images in the batch. answer: probability of each one-token answer; empty for a
    description, whose words are `text`. query: the part of the prompt that asks for something, "" for none.
    fits: whether the query is true of the image; its words are then learned as a description's are.
    matches: for each of `ASKED` 0 (the query does not name it), 1 (named, and so in the image) or 2 (not so).
    claims: the phrases of the query that name something, each with whether it is true of each image shown.
    """

    messages: judge.Messages
    images: tuple[int, ...]
    answer: dict[str, float]
    text: str = ""
    query: str = ""
    fits: bool = False
    matches: tuple[int, ...] = ()
    claims: tuple[tuple[str, tuple[bool, ...]], ...] = ()


def rating_target(value: float) -> dict[str, float]:
    """Soft digits whose expectation is 1 + 4 * value, value in [0, 1]."""
    rating = 1.0 + 4.0 * min(max(value, 0.0), 1.0)
    low = min(int(rating), 4)
    return {str(low): 1.0 - (rating - low), str(low + 1): rating - low}


def comparison_target(value_a: float, value_b: float, sharpness: float) -> dict[str, float]:
    """Bradley-Terry: P(A) is the logistic of the difference in value times `sharpness`."""
    p_a = 1.0 / (1.0 + float(np.exp(-sharpness * (value_a - value_b))))
    return {"A": p_a, "B": 1.0 - p_a}


def accuracy_value(query: str, latents: Latents) -> float:
    """Accuracy as the judge shall rate it, in [0, 1]: cubed, so that one wrong attribute falls below the
    middle.
    """
    return accuracy(parse_query(query), latents) ** 3


def overall_value(query: str, latents: Latents) -> float:
    """Accurate times beautiful, in [0, 1]; an ugly right answer still beats a beautiful wrong one."""
    return accuracy_value(query, latents) * (0.25 + 0.75 * true_aesthetics(latents))


def ask(latents: Latents, rng: np.random.Generator, must: str = "") -> str:
    """A query that the scene answers exactly: its subject, and none to three of its attributes.

    must: an attribute that is named in any case, or "subject".
    """
    return " ".join(ask_in_parts(latents, rng, must).values())


def ask_in_parts(latents: Latents, rng: np.random.Generator, must: str = "") -> dict[str, str]:
    """The query of `ask` by what its phrases name, in their order: names of `ASKED`, and "article"."""
    named = {name for name in ATTRIBUTES if rng.random() < 0.22} | {must}
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


def name_all(latents: Latents, rng: np.random.Generator) -> str:
    """Words for all that a query can ask of the scene, two ways of saying each, without stop words."""
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


def ask_for_another(latents: Latents, rng: np.random.Generator) -> str:
    """A query that the scene fits in all but one attribute: a hard negative."""
    return " ".join(ask_for_another_in_parts(latents, rng).values())


def ask_for_another_in_parts(latents: Latents, rng: np.random.Generator) -> dict[str, str]:
    """The query of `ask_for_another` by what its phrases name."""
    name = str(rng.choice([*ATTRIBUTES, "subject"], p=[0.3, 0.25, 0.2, 0.1, 0.15]))
    others = [value for value in CLASSES[name] if value != getattr(latents, name)]
    return ask_in_parts(replace(latents, **{name: others[rng.integers(len(others))]}), rng, must=name)


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[rng.integers(len(options))]


def sample_questions(
    rng: np.random.Generator, latents: Sequence[Latents], num_pairs: int
) -> dict[str, list[Question]]:
    """Questions of each kind about a batch of scenes, prompts of one kind being of nearly one length.

    Every image is rated for accuracy, every fourth for beauty, every eighth is described. `num_pairs` pairs
    are compared by accuracy and overall, fewer by beauty, each in both orders, one after the other; a quarter
    of `num_pairs` questions rate one of two shown together.
    """
    positions = range(len(latents))
    shares = {criterion: AESTHETICS_SHARE if criterion == "aesthetics" else 1 for criterion in judge.CRITERIA}
    return {
        "aesthetics": [rate_aesthetics(latents[i], i) for i in positions[::4]],
        "accuracy": sample_accuracy(rng, latents),
        "describe": [describe(rng, latents[i], i) for i in positions[1::8]],
        "compare": [
            question
            for criterion in judge.CRITERIA
            for _ in range(math.ceil(num_pairs * shares[criterion]))
            for question in both_orders(compare(rng, criterion, latents, *sample_pair(rng, len(latents))))
        ],
        "together": [
            rate_together(rng, criterion, latents, *sample_pair(rng, len(latents)))
            for criterion in judge.TOGETHER
            for _ in range(num_pairs // 4)
        ],
    }


def sample_accuracy(rng: np.random.Generator, latents: Sequence[Latents], times: int = 1) -> list[Question]:
    """`times` questions on the accuracy of each scene of a batch."""
    return [rate_accuracy(rng, latents, position) for position in range(len(latents)) for _ in range(times)]


def rate_aesthetics(latents: Latents, position: int) -> Question:
    """How beautiful the scene is."""
    messages = judge.rating_messages(judge.AESTHETICS)
    return Question(messages, (position,), rating_target(true_aesthetics(latents)))


def rate_accuracy(rng: np.random.Generator, latents: Sequence[Latents], position: int) -> Question:
    """How well the scene answers a query made for it, nearly for it, or for another scene."""
    scene, other = latents[position], latents[rng.integers(len(latents))]
    kind = rng.random()
    parts = (
        ask_in_parts(scene, rng)
        if kind < 0.35
        else ask_for_another_in_parts(scene, rng)
        if kind < 0.75
        else ask_in_parts(other, rng)
    )
    query = " ".join(parts.values())
    messages = judge.rating_messages(judge.ACCURACY.format(query=judge.plain(query)))
    value = accuracy_value(query, scene)
    return Question(
        messages,
        (position,),
        rating_target(value),
        query=query,
        fits=value == 1.0,
        matches=matches(query, scene),
        claims=claims(parts, (scene,)),
    )


def matches(query: str, latents: Latents) -> tuple[int, ...]:
    """What the query says of the scene in each of `ASKED`: 0 nothing, 1 the truth, 2 an untruth."""
    wanted = parse_query(query)
    asked = [bool(wanted.subjects), *(bool(getattr(wanted, name)) for name in ATTRIBUTES)]
    true = [latents.subject in wanted.subjects]
    true += [getattr(wanted, name) == getattr(latents, name) for name in ATTRIBUTES]
    return tuple(0 if not a else 1 if t else 2 for a, t in zip(asked, true, strict=True))


def claims(parts: dict[str, str], shown: Sequence[Latents]) -> tuple[tuple[str, tuple[bool, ...]], ...]:
    """The phrases of the query that name something, and whether each is true of each scene shown."""
    query = " ".join(parts.values())
    found = [dict(zip(ASKED, matches(query, scene), strict=True)) for scene in shown]
    return tuple(
        (phrase, tuple(named[name] == 1 for named in found))
        for name, phrase in parts.items()
        if name in ASKED and found[0][name]
    )


def describe(rng: np.random.Generator, latents: Latents, position: int) -> Question:
    """What is in the scene, in words: a dense lesson that ties the words of queries to what is seen."""
    text = detailed_caption(latents) if rng.random() < 0.5 else ask(latents, rng)
    return Question(judge.rating_messages(DESCRIBE), (position,), {}, text)


def sample_pair(rng: np.random.Generator, num_images: int, group: int = 4) -> tuple[int, int]:
    """Two different positions, two times in three of the same group (one subject)."""
    a = int(rng.integers(num_images))
    if rng.random() < 2 / 3:
        start = a // group * group
        return a, start + (a - start + int(rng.integers(1, group))) % group
    return a, (a + int(rng.integers(1, num_images))) % num_images


def compare(
    rng: np.random.Generator, criterion: judge.Criterion, latents: Sequence[Latents], a: int, b: int
) -> Question:
    """Which of two scenes is better by the criterion, for a query made for one of them or nearly so."""
    about = latents[a] if rng.random() < 0.5 else latents[b]
    parts = ask_in_parts(about, rng) if rng.random() < 0.75 else ask_for_another_in_parts(about, rng)
    query, shown = " ".join(parts.values()), (latents[a], latents[b])
    if criterion == "aesthetics":
        target = comparison_target(*(true_aesthetics(scene) for scene in shown), 8.0)
    elif criterion == "accuracy":
        target = comparison_target(*(accuracy_value(query, scene) for scene in shown), 8.0)
    else:
        target = comparison_target(*(overall_value(query, scene) for scene in shown), 10.0)
    messages = judge.comparison_messages(criterion, query)
    if criterion == "aesthetics":
        return Question(messages, (a, b), target)
    return Question(messages, (a, b), target, query=query, claims=claims(parts, shown))


def both_orders(question: Question) -> tuple[Question, Question]:
    """The comparison, and the same with its images in each other's place."""
    a, b = question.images
    answer = {"A": question.answer["B"], "B": question.answer["A"]}
    turned = tuple((phrase, true[::-1]) for phrase, true in question.claims)
    return question, replace(question, images=(b, a), answer=answer, claims=turned)


def rate_together(
    rng: np.random.Generator,
    criterion: Literal["accuracy", "aesthetics"],
    latents: Sequence[Latents],
    a: int,
    b: int,
) -> Question:
    """How well one of two scenes does that are shown together."""
    shown, letter = (latents[a], latents[b]), int(rng.integers(2))
    parts = ask_in_parts(shown[rng.integers(2)], rng)
    query = " ".join(parts.values())
    messages = judge.together_messages(criterion, query, judge.LETTERS[letter])
    if criterion == "aesthetics":
        return Question(messages, (a, b), rating_target(true_aesthetics(shown[letter])))
    target = rating_target(accuracy_value(query, shown[letter]))
    return Question(messages, (a, b), target, query=query, claims=claims(parts, shown))


def corpus(rng: np.random.Generator, num_texts: int) -> list[str]:
    """Texts that the tokenizer is trained on: the prompts, and queries and descriptions of the studio."""
    latents = [sample_latents(rng) for _ in range(num_texts)]
    prompts = [
        judge.SYSTEM,
        judge.AESTHETICS,
        judge.ACCURACY,
        DESCRIBE,
        *judge.COMPARE.values(),
        *judge.TOGETHER.values(),
    ]
    turns = ["system\n", "user\n", "assistant\n", "\nA:", "B:"]
    return (
        (prompts + turns) * 50
        + [detailed_caption(x) for x in latents]
        + [f' "{ask(x, rng)}"' for x in latents]
    )
