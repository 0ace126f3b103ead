"""A made-up evaluation with known figures: 20 images, 3 queries, a judge that prefers higher numbers."""

import dataclasses
from io import BytesIO

import numpy as np
from PIL import Image

from cluster.profile import load_profile
from cluster.tables import now
from jobs.evaluate import inputs, summary
from jobs.evaluate.figures import winrate
from jobs.evaluate.hpir import Row, Votes
from jobs.evaluate.inputs import EvaluationInputs
from jobs.evaluate.language_models import Judgements, JudgeNames
from jobs.evaluate.systems import SystemResults
from jobs.evaluate.teacher import TeacherCandidates
from lab.studio.latents import sample_latents
from lab.studio.words import ASPECTS, LIGHT_APPEAL

IDS = [f"{i:064x}" for i in range(20)]
QUERIES = ["a boat", '<b>&"boat"</b>', "same boat"]


def scene(number):
    """A boat if even, else a guitar; as beautiful as its number, to every taste."""
    light = min(LIGHT_APPEAL, key=lambda name: abs(LIGHT_APPEAL[name] - number / 20))
    aspects = {name: number / 20 for name in ASPECTS if name != "light"}
    drawn = sample_latents(np.random.default_rng(number), subject="sailboat" if number % 2 == 0 else "guitar")
    return dataclasses.replace(drawn, light=light, **aspects)


class KnownTruth:
    """Even images are accurate; image i has aesthetics i / 20."""

    def accurate(self, query, image_ids):
        return np.array([int(i, 16) % 2 == 0 for i in image_ids])

    def aesthetics(self, query, image_ids):
        return np.array([int(i, 16) / 20 for i in image_ids])


LATENTS = {IDS[number]: scene(number) for number in range(20)}
LABELS = {image_id: latents.subject for image_id, latents in LATENTS.items()}


def ids(*numbers):
    return [IDS[n] for n in numbers]


def by_image(*values):
    """image_id -> value, for the first images."""
    return dict(zip(IDS, values, strict=False))


BEFORE = [ids(0, 2, 4, 6, 8), ids(18, 16, 14, 12, 10), ids(1, 2, 3, 4, 5)]
AFTER = [ids(10, 12, 14, 16, 18), ids(19, 17, 15, 13, 10), ids(1, 2, 3, 4, 5)]


def jpeg(number):
    buffer = BytesIO()
    Image.new("RGB", (256, 192), (number * 12, 90, 120)).save(buffer, "JPEG")
    return buffer.getvalue()


def image_row(number):
    return {
        "image_id": IDS[number],
        "uri": f"/photos/{number}.jpg",
        "caption": f"<i>picture</i> {number}",
        "detailed_caption": "",
        "width_px": 256,
        "height_px": 192,
        "preview": jpeg(number),
        "tags": [],
        "source": "test",
        "added_at": now(),
    }


def evaluation(truth, *, with_text=False, with_nulls=False):
    """A baseline, an aligned encoder, a teacher with the aligned encoder's results, and the judge.

    with_text: a second aligned encoder, with the results of the first. with_nulls: `suffix` with the
    baseline's results, and `axis` with the baseline's but for the first query, where it has the aligned ones.
    """
    captions = inputs.Captions(("x", "y"), {IDS[0]: 0, IDS[1]: 1, IDS[2]: 1}, "caption", 3, 2)
    row = Row("q", (IDS[0],), (IDS[1],), {"accuracy": Votes(3, 0), "aesthetic": Votes(1, 4)})
    votes = inputs.VoteTable("folder/votes.parquet", (row,), 1, 0)
    scores = {votes.name: np.array([[0.9, 0.1]])}
    given = EvaluationInputs(QUERIES, captions, [votes], [], truth, frozenset(IDS), LABELS)
    systems = {
        "baseline": SystemResults(
            BEFORE, np.array([1, 11]), scores, np.array([4.0, 2.0]), by_image(1, 7, 11), by_image(True, False)
        ),
        "teacher": SystemResults(AFTER, np.array([2]), scores, np.array([1.0, 2.0])),
        "aligned": SystemResults(
            AFTER, np.array([1, 7]), scores, np.array([5.0, 2.0]), by_image(1, 2, 2), by_image(True, True)
        ),
    }
    own_pairs = winrate.pairs_to_judge(AFTER, BEFORE)
    pairs = {("aligned", "baseline"): own_pairs}
    if with_text:
        systems["text"], pairs["text", "baseline"] = systems["aligned"], own_pairs
    nulls = {"suffix": ", lovely", "strength": 0.25, "axis": [0.0, 1.0]} if with_nulls else {}
    if with_nulls:
        before, pairs["aligned", "suffix"] = systems["baseline"], own_pairs
        axis = dataclasses.replace(before, results=[AFTER[0], *BEFORE[1:]])
        others = {name: found for name, found in systems.items() if name != "baseline"}
        systems = {"baseline": before, "suffix": before, "axis": axis, **others}
    preferred = {(QUERIES[q], a, b): ((0.9, 0.8) if a > b else (0.2, 0.3)) for q, _, a, b in own_pairs}
    known = KnownTruth()
    shown = [(query, i) for row in (*BEFORE, *AFTER) for i in row for query in QUERIES]
    shown += [(row.query, i) for i in (*row.group_a, *row.group_b)]
    accuracy = {pair: 5.0 if known.accurate(pair[0], [pair[1]])[0] else 1.0 for pair in shown}
    aesthetics = {pair: 1 + 4 * float(known.aesthetics(pair[0], [pair[1]])[0]) for pair in shown}
    voted = (row.query, *row.group_a, *row.group_b)
    compared = {("overall", *pair): p for pair, p in preferred.items()}
    compared |= {("accuracy", *voted): (0.7, 0.8), ("aesthetics", *voted): (0.3, 0.6)}
    together = {
        (name, *pair): np.tile([rated[pair[0], pair[1]], rated[pair[0], pair[2]]], (2, 1))
        for name, rated in (("accuracy", accuracy), ("aesthetics", aesthetics))
        for pair in (*preferred, voted)
    }
    judgements = Judgements(aesthetics, accuracy, compared, together)
    judges = JudgeNames("judge@1", "judge@1", ("judge@1",))
    candidates = TeacherCandidates(QUERIES, AFTER, {QUERIES[0]: "a boat, golden light"}, 1)
    encoders = {"baseline": "b" * 16, "aligned": "a" * 16}
    return summary.EvaluationResults(
        given,
        systems,
        candidates,
        pairs,
        judgements,
        judgements,
        accuracy,
        3.0,
        encoders,
        load_profile("mini"),
        judges,
        nulls,
    )
