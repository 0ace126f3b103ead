"""The step of alignment with a tiny random encoder: what it computes, and what it moves."""

import copy
import math

import numpy as np
import pytest
import torch

from actors.encoder import Encoder
from cluster.profile import Align
from jobs.align.learner import Learner, Plan, batch_loss, learning_rate_factor, to_tensors

QUERIES = ["a red sailboat", "two dogs", "a mountain lake", "a beach in the morning"]
CAPTIONS = ["sailboat", "dogs running", "lake", "sailboat"]


@pytest.fixture
def folder(tiny_encoder_folder) -> str:
    return tiny_encoder_folder


def learner(folder: str, *, batches_per_step: int = 1, num_steps: int = 1, **changes) -> Learner:
    settings = Align(**{"mode": "both", "learning_rate": 1e-3, "pretrain_weight": 0.5, **changes})
    plan = Plan(
        model=folder,
        precision="fp32",
        num_threads=1,
        num_steps=num_steps,
        batches_per_step=batches_per_step,
        num_feeders=1,
        folder="",
        settings=settings,
    )
    return Learner(Encoder.load(folder, num_threads=1), plan)


def make(queries: list[int], *, images_per_query: int = 3, captions: bool = True, seed: int = 0) -> dict:
    """A batch of random pixels in which every image of a query beats the ones after it."""
    size = images_per_query
    pairs = [(q, a, b) for q in range(len(queries)) for a in range(size) for b in range(a + 1, size)]
    place, winner, loser = np.array(pairs, np.int64).T
    query = np.array(queries)[place]
    pixels = [np.random.default_rng([seed, q]).integers(0, 256, (size, 3, 96, 96)) for q in queries]
    texts = [QUERIES[q] for q in queries]
    caption_rows = range(len(queries)) if captions else []
    return {
        "number": 0,
        "images": np.concatenate(pixels).astype(np.uint8),
        "texts": texts + [CAPTIONS[q] for q in queries],
        "pair_query": place,
        "pair_winner": place * size + winner,
        "pair_loser": place * size + loser,
        "p_winner": np.full(len(pairs), 0.9, np.float32),
        "winner_reference": np.sin(query + 3 * winner).astype(np.float32),
        "loser_reference": np.cos(query + 5 * loser).astype(np.float32),
        "pair_weight": np.full(len(pairs), 1 / len(pairs), np.float32),
        "caption_image": np.array([row * size for row in caption_rows], np.int64),
        "caption_text": np.array([len(queries) + row for row in caption_rows], np.int64),
    }


def weights(subject: Learner) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in subject.towers.model.state_dict().items()}


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


def moved(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in one if not torch.equal(one[name], other[name])}


def test_a_policy_that_equals_the_reference_starts_at_ln_2_and_no_reward(folder):
    subject, batch = learner(folder), make([0, 1])
    images = subject.encoder.encode_images(batch["images"])
    texts = subject.encoder.encode_texts(batch["texts"])
    for side in ("winner", "loser"):
        pairs = texts[batch["pair_query"]] * images[batch[f"pair_{side}"]]
        batch[f"{side}_reference"] = pairs.sum(-1) / subject.temperature
    _, metrics = batch_loss(subject.towers, to_tensors(batch, subject.encoder), Align(), subject.temperature)
    assert metrics["loss_preference"].item() == pytest.approx(math.log(2), abs=1e-4)
    assert metrics["rewards/chosen"].item() == pytest.approx(0, abs=1e-4)
    assert metrics["loss"].item() == pytest.approx(
        (metrics["loss_preference"] + metrics["loss_pt"]).item(), abs=1e-5
    )


def test_gathered_scores_equal_encoding_winner_and_loser_of_every_pair(folder):
    subject, batch = learner(folder), make([2, 0], captions=False)
    _, metrics = batch_loss(
        subject.towers, to_tensors(batch, subject.encoder), Align(beta=0.7), subject.temperature
    )
    losses = []
    for pair in range(len(batch["p_winner"])):
        both = batch["images"][[batch["pair_winner"][pair], batch["pair_loser"][pair]]]
        text = subject.encoder.encode_texts([batch["texts"][batch["pair_query"][pair]]])[0]
        chosen, rejected = subject.encoder.encode_images(both) @ text / subject.temperature
        reference = batch["winner_reference"][pair] - batch["loser_reference"][pair]
        margin = 0.7 * (chosen - rejected - reference)
        losses.append(0.9 * math.log1p(math.exp(-margin)) + 0.1 * math.log1p(math.exp(margin)))
    assert metrics["loss_preference"].item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_two_accumulated_batches_make_the_step_of_the_whole(folder):
    whole, parts = learner(folder, pretrain_weight=0), learner(folder, pretrain_weight=0, batches_per_step=2)
    start = weights(whole)
    metrics = whole.step([make([0, 1, 2, 3], captions=False)])
    summed = parts.step([make([0, 1], captions=False), make([2, 3], captions=False)])
    assert largest_difference(weights(whole), start) > 1e-4
    assert largest_difference(weights(whole), weights(parts)) < 1e-5
    assert all(metrics[name].item() == pytest.approx(summed[name].item(), abs=1e-4) for name in metrics)


def test_both_moves_both_towers_and_neither_temperature_nor_batch_statistics(folder):
    subject = learner(folder)
    before = weights(subject)
    subject.step([make([0, 1])])
    changed = moved(before, weights(subject))
    assert any(name.startswith("visual.") for name in changed)
    assert any(name.startswith("transformer.") for name in changed)
    assert not any("running_" in name or "num_batches" in name or name == "logit_scale" for name in changed)


def test_text_moves_the_text_tower_alone_and_takes_vectors_for_images(folder):
    subject = learner(folder, mode="text")
    batch, before = make([0, 1]), weights(subject)
    batch["images"] = subject.encoder.encode_images(batch["images"])
    subject.step([batch])
    changed = moved(before, weights(subject))
    assert changed and not any(name.startswith("visual.") or name == "logit_scale" for name in changed)
    assert subject.towers.learned().keys() >= changed


@pytest.mark.parametrize("objective", ["dpo", "rank_dpo", "plackett_luce"])
def test_learning_lowers_the_loss(folder, objective):
    subject = learner(folder, num_steps=8, learning_rate=1e-3, warmup=0.0, objective=objective)
    losses = [subject.step([make([0, 1])])["loss_preference"].item() for _ in range(8)]
    assert losses[-1] < losses[0] - 0.05


def test_a_learner_that_loads_a_state_goes_on_exactly(folder):
    one = learner(folder, epochs=2)
    one.epoch([make([0, 1])])
    one.epochs.append({"loss": 1.0})
    state = copy.deepcopy(one.state())
    other = learner(folder, epochs=2)
    other.load(state)
    assert one.epoch([make([2, 3])]).tolist() == other.epoch([make([2, 3])]).tolist()
    assert largest_difference(weights(one), weights(other)) == 0
    assert other.epochs == [{"loss": 1.0}]


def test_an_epoch_of_the_wrong_length_is_refused(folder):
    with pytest.raises(AssertionError):
        learner(folder, num_steps=2).epoch([make([0])])


def test_the_step_size_rises_then_falls_to_zero():
    factors = [learning_rate_factor(step, num_steps=10, warmup=0.2) for step in range(11)]
    assert factors[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert factors[6] == pytest.approx(0.5) and factors[10] == pytest.approx(0)
    assert factors[2:] == sorted(factors[2:], reverse=True)
    assert learning_rate_factor(0, num_steps=1, warmup=0.1) == 1
