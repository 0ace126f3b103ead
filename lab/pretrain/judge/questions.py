"""Training questions of the mini judge: prompts about studio scenes, with their true answers.

The latents of a scene determine how beautiful it is and how well it matches a query, so every question has a
known answer. Answers are soft: a rating of 3.7 is 30 % "3" and 70 % "4", and a comparison is the logistic of
the difference in value.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from actors import judge
from lab.pretrain.judge.queries import (
    accuracy_value,
    matching_query,
    matching_query_parts,
    near_miss_query_parts,
    overall_value,
    part_matches,
    phrase_truths,
)
from lab.studio.captions import detailed_caption
from lab.studio.latents import Latents, sample_latents, true_aesthetics

DESCRIBE = "Describe this picture."
# Share of a batch's pairs that are compared by beauty: the judge learns it long before the rest.
AESTHETICS_SHARE = 0.25
VALUE_SHARPNESS, OVERALL_SHARPNESS = 8.0, 10.0  # of the logistic of a difference in value


@dataclass(frozen=True)
class Question:
    """One prompt and its answer.

    images: positions of its images in the batch. answer: probability of each one-token answer; empty for a
    description, whose words are `text`. query: the query inside the prompt, "" for none. is_accurate: whether
    the image matches the query; its words are then trained on like those of a description. matches: for each
    of `QUERY_PARTS` what the query says of the image. phrases: the phrases of the query that name something,
    each with whether it is true of each image shown.
    """

    messages: judge.Messages
    images: tuple[int, ...]
    answer: dict[str, float]
    text: str = ""
    query: str = ""
    is_accurate: bool = False
    matches: tuple[int, ...] = ()
    phrases: tuple[tuple[str, tuple[bool, ...]], ...] = ()


def rating_target(value: float) -> dict[str, float]:
    """Probabilities of two neighbouring digits with expectation 1 + 4 * value, for value in [0, 1]."""
    rating = 1.0 + 4.0 * min(max(value, 0.0), 1.0)
    low = min(int(rating), 4)
    return {str(low): 1.0 - (rating - low), str(low + 1): rating - low}


def comparison_target(value_a: float, value_b: float, sharpness: float) -> dict[str, float]:
    """Bradley-Terry: P(A) is the logistic of `sharpness` times the difference in value."""
    p_a = 1.0 / (1.0 + float(np.exp(-sharpness * (value_a - value_b))))
    return {"A": p_a, "B": 1.0 - p_a}


def sample_questions(
    rng: np.random.Generator, latents: Sequence[Latents], num_pairs: int
) -> dict[str, list[Question]]:
    """Questions of each kind about a batch of scenes; prompts of one kind have nearly the same length.

    Every image is rated for accuracy, every fourth for beauty, and every eighth is described. `num_pairs`
    pairs are compared by accuracy, as many overall and fewer by beauty, each in both orders, one after the
    other. For each criterion num_pairs / 4 questions rate one of two images shown together.
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
    """`times` questions about the accuracy of each scene of a batch."""
    return [rate_accuracy(rng, latents, position) for position in range(len(latents)) for _ in range(times)]


def rate_aesthetics(latents: Latents, position: int) -> Question:
    """How beautiful the scene is."""
    messages = judge.rating_messages(judge.AESTHETICS)
    return Question(messages, (position,), rating_target(true_aesthetics(latents)))


def rate_accuracy(rng: np.random.Generator, latents: Sequence[Latents], position: int) -> Question:
    """How well the scene matches a query: a matching one, a near miss, or one made for another scene."""
    scene, other = latents[position], latents[int(rng.integers(len(latents)))]
    kind = rng.random()
    if kind < 0.35:
        parts = matching_query_parts(scene, rng)
    elif kind < 0.75:
        parts = near_miss_query_parts(scene, rng)
    else:
        parts = matching_query_parts(other, rng)
    query = " ".join(parts.values())
    value = accuracy_value(query, scene)
    return Question(
        judge.rating_messages(judge.ACCURACY.format(query=judge.plain(query))),
        (position,),
        rating_target(value),
        query=query,
        is_accurate=value == 1.0,
        matches=part_matches(query, scene),
        phrases=phrase_truths(parts, (scene,)),
    )


def describe(rng: np.random.Generator, latents: Latents, position: int) -> Question:
    """A description of the scene: it ties the words of queries to what is visible, many at a time."""
    text = detailed_caption(latents) if rng.random() < 0.5 else matching_query(latents, rng)
    return Question(judge.rating_messages(DESCRIBE), (position,), {}, text)


def sample_pair(rng: np.random.Generator, num_images: int, group: int = 4) -> tuple[int, int]:
    """Two different positions, two times in three from the same group, which has one subject."""
    a = int(rng.integers(num_images))
    if rng.random() < 2 / 3:
        start = a // group * group
        return a, start + (a - start + int(rng.integers(1, group))) % group
    return a, (a + int(rng.integers(1, num_images))) % num_images


def compare(
    rng: np.random.Generator, criterion: judge.Criterion, latents: Sequence[Latents], a: int, b: int
) -> Question:
    """Which of two scenes is better by the criterion, for a matching query or a near miss of one of them."""
    about = latents[a] if rng.random() < 0.5 else latents[b]
    matching = rng.random() < 0.75
    parts = matching_query_parts(about, rng) if matching else near_miss_query_parts(about, rng)
    query, shown = " ".join(parts.values()), (latents[a], latents[b])
    messages = judge.comparison_messages(criterion, query)
    if criterion == "aesthetics":
        value_a, value_b = (true_aesthetics(scene) for scene in shown)
        return Question(messages, (a, b), comparison_target(value_a, value_b, VALUE_SHARPNESS))
    by_accuracy = criterion == "accuracy"
    value_a, value_b = ((accuracy_value if by_accuracy else overall_value)(query, scene) for scene in shown)
    target = comparison_target(value_a, value_b, VALUE_SHARPNESS if by_accuracy else OVERALL_SHARPNESS)
    return Question(messages, (a, b), target, query=query, phrases=phrase_truths(parts, shown))


def both_orders(question: Question) -> tuple[Question, Question]:
    """The comparison, and the same comparison with its images swapped."""
    a, b = question.images
    answer = {"A": question.answer["B"], "B": question.answer["A"]}
    phrases = tuple((phrase, truths[::-1]) for phrase, truths in question.phrases)
    return question, replace(question, images=(b, a), answer=answer, phrases=phrases)


def rate_together(
    rng: np.random.Generator,
    criterion: Literal["accuracy", "aesthetics"],
    latents: Sequence[Latents],
    a: int,
    b: int,
) -> Question:
    """How accurate or beautiful one of two scenes shown together is."""
    shown, letter = (latents[a], latents[b]), int(rng.integers(2))
    parts = matching_query_parts(shown[rng.integers(2)], rng)
    query = " ".join(parts.values())
    messages = judge.together_messages(criterion, query, judge.LETTERS[letter])
    if criterion == "aesthetics":
        return Question(messages, (a, b), rating_target(true_aesthetics(shown[letter])))
    target = rating_target(accuracy_value(query, shown[letter]))
    return Question(messages, (a, b), target, query=query, phrases=phrase_truths(parts, shown))


def tokenizer_corpus(rng: np.random.Generator, num_texts: int) -> list[str]:
    """Texts to train the tokenizer on: the prompts, and queries and descriptions of the studio."""
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
        + [detailed_caption(scene) for scene in latents]
        + [f' "{matching_query(scene, rng)}"' for scene in latents]
    )
