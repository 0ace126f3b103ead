"""The nulls as systems of an evaluation, on vectors and texts whose order is known."""

import numpy as np
import pytest
from made_evaluation import KnownTruth, evaluation

from cluster.tables import EncoderRecord
from jobs.evaluate import inputs, nulls, summary
from jobs.evaluate.config import EvaluateConfig
from jobs.evaluate.hpir import Row, Votes
from jobs.evaluate.job import matched_pairs
from jobs.evaluate.teacher import TeacherCandidates

IDS = ["plain boat", "lovely boat", "plain cat", "lovely cat"]
VECTORS = dict(zip(IDS, np.array([[1, 0, 0], [0.8, 0, 0.6], [0, 1, 0], [0, 0.8, 0.6]]), strict=True))
WORDS = {"a": [0, 0, 0], "boat": [1, 0, 0], "cat": [0, 1, 0], "lovely": [0, 0, 0.9]}
CAPTIONS = inputs.Captions(("boat", "cat"), dict(zip(IDS, (0, -1, -1, 1), strict=True)), "caption", 2, 0)
VOTES = inputs.VoteTable("votes", (Row("cat", (IDS[2],), (IDS[3],), {"aesthetic": Votes(0, 1)}),), 0, 0)
INPUTS = inputs.EvaluationInputs(
    ["boat", "cat"], CAPTIONS, [VOTES], [], None, frozenset(IDS), dict.fromkeys(IDS, "boat")
)
FITTED = {"suffix": ", lovely", "axis": [0.0, 0.0, 1.0], "strength": 0.9}
FIGURES = EvaluateConfig(num_resamples=100)


class Baseline:
    """The four images, and texts that are the sums of their words."""

    def encode_texts(self, texts):
        rows = [sum(np.array(WORDS[word]) for word in text.replace(",", "").split()) for text in texts]
        return np.array([row / np.linalg.norm(row) for row in rows]).reshape(-1, 3)

    def search_vectors(self, vectors, k):
        matrix = np.array(list(VECTORS.values()))
        return [[IDS[i] for i in np.argsort(-(matrix @ vector), kind="stable")[:k]] for vector in vectors]

    def blocks(self):
        yield IDS, np.array(list(VECTORS.values()))

    def vectors(self, image_ids):
        return {image_id: VECTORS[image_id] for image_id in image_ids}


@pytest.mark.parametrize("name", ["suffix", "axis"])
def test_nulls_change_every_text_and_no_image(name):
    found = nulls.null_systems(Baseline(), FITTED)[name].results(INPUTS)
    assert [ids[0] for ids in found.results] == ["lovely boat", "lovely cat"]
    # The caption "boat" belongs to the plain boat, which is now second.
    assert found.caption_ranks.tolist() == [2, 1]
    plain, lovely = found.vote_scores["votes"][0]
    assert lovely > plain
    assert found.zero_shot_hits.keys() == set(IDS) and found.image_ranks.keys() == {IDS[0], IDS[3]}


def test_baseline_prefers_the_plain_images():
    unchanged = nulls.ChangedQueries(Baseline(), Baseline().encode_texts).results(INPUTS)
    assert [ids[0] for ids in unchanged.results] == ["plain boat", "plain cat"]


def test_rephrase_searches_with_the_rephrased_queries_and_captions_alone():
    rephrased = {"boat": "boat, lovely", "cat": "lovely cat"}
    candidates = TeacherCandidates(["boat", "cat", "boat"], [[]] * 3, rephrased, 0)  # one caption: "boat"
    found = nulls.rephrase_results(Baseline(), INPUTS, candidates)
    assert [ids[0] for ids in found.results] == ["lovely boat", "lovely cat"]
    assert found.caption_ranks.tolist() == [2]
    assert found.vote_scores["votes"][0, 0] < found.vote_scores["votes"][0, 1]
    assert not found.zero_shot_hits and not found.image_ranks


def record(parent, fitted):
    metrics = {"align": {"nulls": fitted} if fitted else {}}
    return EncoderRecord(encoder="a" * 16, checkpoint="none", dim=3, parent=parent, metrics=metrics)


@pytest.mark.parametrize(
    "parent, fitted, why",
    [("b" * 16, None, "has none in its record"), ("c" * 16, FITTED, "was not aligned from the baseline")],
)
def test_nulls_that_are_missing_or_of_another_baseline_are_left_out_with_a_reason(
    parent, fitted, why, capsys
):
    records = {"baseline": record("", None), "aligned": record(parent, fitted)}
    records["baseline"] = EncoderRecord(encoder="b" * 16, checkpoint="none", dim=3)
    assert nulls.fitted_nulls(records) == {}
    assert f"suffix and axis are left out: encoder {'a' * 16} {why}" in capsys.readouterr().err
    assert nulls.null_systems(Baseline(), {}) == {}


def test_nulls_are_read_from_the_record_of_the_aligned_encoder():
    records = {"baseline": EncoderRecord(encoder="b" * 16, checkpoint="none", dim=3)}
    assert nulls.fitted_nulls(records | {"aligned": record("b" * 16, FITTED)}) == FITTED


def test_report_compares_with_the_best_null():
    found = summary.document(evaluation(KnownTruth(), with_nulls=True), FIGURES)
    assert list(found["systems"]) == ["baseline", "suffix", "axis", "teacher", "aligned"]
    # On the first query the aligned results are more beautiful, on the second those of the baseline.
    value = {name: found["systems"][name]["aesthetic@5"]["value"] for name in found["systems"]}
    assert value["axis"] > value["suffix"] == value["baseline"] and found["best_null"] == "axis"
    differences = found["differences"]
    assert set(differences) == {
        f"{name}_minus_{other}" for name in ("aligned", "teacher") for other in ("baseline", "best_null")
    }
    expected = value["aligned"] - value["axis"]
    assert differences["aligned_minus_best_null"]["aesthetic@5"]["value"] == pytest.approx(expected, abs=1e-6)
    assert found["nulls"] == {"suffix": ", lovely", "strength": 0.25}


@pytest.mark.parametrize("with_nulls", [True, False])
def test_best_null_without_a_truth_is_chosen_by_the_judge(with_nulls):
    found = summary.document(evaluation(None, with_nulls=with_nulls), FIGURES)
    assert found["best_null"] == ("axis" if with_nulls else None)


def test_judge_compares_the_aligned_encoder_with_the_suffix_too():
    made = evaluation(KnownTruth(), with_nulls=True)
    assert list(matched_pairs(made.systems)) == [("aligned", "baseline"), ("aligned", "suffix")]
    rates = summary.document(made, FIGURES)["win_rate"]
    assert list(rates) == ["aligned_vs_baseline", "aligned_vs_suffix"]
    assert rates["aligned_vs_suffix"]["value"] == pytest.approx(2.5 / 3, abs=1e-6)
