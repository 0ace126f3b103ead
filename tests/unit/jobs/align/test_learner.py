"""A step of alignment with a tiny random encoder: what it computes, and which weights it changes."""

import copy
import math
from typing import get_args

import numpy as np
import pytest
import torch

from actors.encoder import Encoder
from cluster.errors import UserError
from cluster.profile import Align, Objective
from jobs.align.learner import Learner, batch_loss, check_finite, learning_rate_factor, to_tensors
from jobs.align.objectives import lambda_weights, plackett_luce_loss, preference_losses, win_shares

QUERIES = ["a red sailboat", "two dogs", "a mountain lake", "a beach in the morning"]
CAPTIONS = ["sailboat", "dogs running", "lake", "sailboat"]


@pytest.fixture
def folder(tiny_encoder_folder) -> str:
    return tiny_encoder_folder


def learner(folder: str, *, batches_per_step: int = 1, num_steps: int = 1, **changes) -> Learner:
    defaults = {"mode": "both", "learning_rate": 1e-3, "pretrain_weight": 0.5}
    settings = Align(**{**defaults, "batches_per_step": batches_per_step, **changes})
    return Learner(Encoder.load(folder, num_threads=1), settings, num_steps)


def make(queries: list[int], *, images_per_query: int = 3, captions: bool = True, seed: int = 0) -> dict:
    """A batch of random pixels in which every image of a query beats the ones after it."""
    size = images_per_query
    pairs = [(q, a, b) for q in range(len(queries)) for a in range(size) for b in range(a + 1, size)]
    index, winner, loser = np.array(pairs, np.int64).T
    query = np.array(queries)[index]
    pixels = [np.random.default_rng([seed, q]).integers(0, 256, (size, 3, 96, 96)) for q in queries]
    texts = [QUERIES[q] for q in queries]
    caption_rows = range(len(queries)) if captions else []
    return {
        "index": 0,
        "images": np.concatenate(pixels).astype(np.uint8),
        "texts": texts + [CAPTIONS[q] for q in queries],
        "pair_query": index,
        "pair_winner": index * size + winner,
        "pair_loser": index * size + loser,
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


def changed_names(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in one if not torch.equal(one[name], other[name])}


def test_a_policy_equal_to_the_reference_has_loss_ln_2_and_reward_0(folder):
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


def test_gathered_scores_equal_those_of_separately_encoded_pairs(folder):
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


def test_reward_metrics_are_weighted_means_whatever_the_weights_sum_to(folder):
    subject, batch = learner(folder, pretrain_weight=0), make([0, 1], captions=False)
    half = copy.deepcopy(batch)
    half["pair_weight"] /= 2
    whole, less = (
        batch_loss(subject.towers, to_tensors(each, subject.encoder), subject.settings, subject.temperature)[
            1
        ]
        for each in (batch, half)
    )
    for name in ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"):
        assert less[name].item() == pytest.approx(whole[name].item(), rel=1e-5)
    assert less["loss_preference"].item() == pytest.approx(whole["loss_preference"].item() / 2, rel=1e-5)


def test_two_accumulated_batches_equal_one_whole_batch(folder):
    whole, parts = learner(folder, pretrain_weight=0), learner(folder, pretrain_weight=0, batches_per_step=2)
    start = weights(whole)
    metrics = whole.step([make([0, 1, 2, 3], captions=False)])
    summed = parts.step([make([0, 1], captions=False), make([2, 3], captions=False)])
    assert largest_difference(weights(whole), start) > 1e-4
    assert largest_difference(weights(whole), weights(parts)) < 1e-5
    assert all(metrics[name].item() == pytest.approx(summed[name].item(), abs=1e-4) for name in metrics)


def test_mode_both_trains_both_towers_but_not_temperature_and_batch_statistics(folder):
    subject = learner(folder)
    before = weights(subject)
    subject.step([make([0, 1])])
    changed = changed_names(before, weights(subject))
    assert any(name.startswith("visual.") for name in changed)
    assert any(name.startswith("transformer.") for name in changed)
    assert not any("running_" in name or "num_batches" in name or name == "logit_scale" for name in changed)


def test_mode_text_trains_only_the_text_tower_and_takes_vectors_as_images(folder):
    subject = learner(folder, mode="text")
    batch, before = make([0, 1]), weights(subject)
    batch["images"] = subject.encoder.encode_images(batch["images"])
    subject.step([batch])
    changed = changed_names(before, weights(subject))
    assert changed and not any(name.startswith("visual.") or name == "logit_scale" for name in changed)
    assert subject.towers.learned().keys() >= changed


@pytest.mark.parametrize("objective", [name for name in get_args(Objective) if name != "kto"])
def test_a_pair_of_double_weight_equals_two_copies(folder, objective):
    """Weights of 1/4, 1/4 and 1/2 equal pairs 0 and 1 once and pair 2 twice."""
    subject, batch = learner(folder), make([0], captions=False)
    settings = Align(objective=objective, beta=0.3)
    weighed, copied = copy.deepcopy(batch), copy.deepcopy(batch)
    for name in ("winner", "loser"):  # one score per image, so that all pairs agree
        image = batch[f"pair_{name}"]
        weighed[f"{name}_reference"] = np.sin(image).astype(np.float32)
    weighed["p_winner"] = np.array([0.9, 0.6, 0.8], np.float32)
    weighed["pair_weight"] = np.array([1 / 4, 1 / 4, 1 / 2], np.float32)
    rows = [0, 1, 2, 2]
    for name in weighed:
        if name.startswith(("pair_", "p_")) or name.endswith("_reference"):
            copied[name] = weighed[name][rows]
    copied["pair_weight"] = np.full(4, 1 / 4, np.float32)
    metrics = []
    for each in (weighed, copied):
        tensors = to_tensors(each, subject.encoder)
        metrics.append(batch_loss(subject.towers, tensors, settings, subject.temperature)[1])
    for name, value in metrics[0].items():
        assert value.item() == pytest.approx(metrics[1][name].item(), rel=1e-5), name


def test_grades_and_lambdas_match_weighted_means_computed_by_hand():
    chosen, rejected = torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2])
    p, weight = torch.tensor([0.9, 0.5, 0.8]), torch.tensor([1.0, 0.25, 0.5])
    shares = win_shares(p, chosen, rejected, 4, weight)
    assert shares.tolist() == pytest.approx(
        [(0.9 + 0.5 / 4) / 1.25, (0.1 + 0.8 / 2) / 1.5, (0.5 / 4 + 0.2 / 2) / 0.75, 0.5]
    )
    values = torch.tensor([1.0, 0.5, 0.0])
    discounts = [1 / math.log2(1 + rank) for rank in (1, 2, 3)]
    raw = [
        (2 - math.sqrt(2)) * (discounts[0] - discounts[1]),
        (2 - 1) * (discounts[0] - discounts[2]),
        (math.sqrt(2) - 1) * (discounts[1] - discounts[2]),
    ]
    mean = (raw[0] + raw[1] / 4 + raw[2] / 2) / 1.75
    lambdas = lambda_weights(values, chosen, rejected, weight)
    assert lambdas.tolist() == pytest.approx([each / mean for each in raw], rel=1e-5)
    assert (lambdas * weight).sum().item() == pytest.approx(weight.sum().item(), rel=1e-5)


def test_pairs_of_low_weight_do_not_reverse_a_ranking():
    """By the plain mean image 0 is the worst of three, but only pairs of negligible weight say so."""
    chosen, rejected = torch.tensor([1, 2, 0, 1]), torch.tensor([0, 0, 1, 2])
    p, weight = torch.tensor([0.95, 0.95, 0.9, 0.6]), torch.tensor([0.01, 0.01, 1.0, 1.0])
    scores = torch.tensor([0.4, -0.3, 0.8])
    losses, _, _ = preference_losses(
        "plackett_luce",
        (scores[chosen], scores[rejected]),
        (torch.zeros(4), torch.zeros(4)),
        p_chosen=p,
        query=torch.zeros(4, dtype=torch.int64),
        images=(chosen, rejected),
        beta=1.0,
        target_margin=0.0,
        pair_weight=weight,
    )
    in_order = plackett_luce_loss(scores[[0, 2, 1]], torch.zeros(3), beta=1.0).mean()
    assert losses.tolist() == pytest.approx([in_order.item()] * 4)


@pytest.mark.parametrize("objective", ["dpo", "rank_dpo", "plackett_luce"])
def test_training_lowers_the_loss(folder, objective):
    subject = learner(folder, num_steps=8, learning_rate=1e-3, warmup=0.0, objective=objective)
    losses = [subject.step([make([0, 1])])["loss_preference"].item() for _ in range(8)]
    assert losses[-1] < losses[0] - 0.05


def test_a_learner_that_loads_a_state_continues_exactly(folder):
    one = learner(folder, epochs=2)
    one.epoch([make([0, 1])])
    one.epochs.append({"loss": 1.0})
    state = copy.deepcopy(one.state())
    other = learner(folder, epochs=2)
    other.load(state)
    assert one.epoch([make([2, 3])]).tolist() == other.epoch([make([2, 3])]).tolist()
    assert largest_difference(weights(one), weights(other)) == 0
    assert other.epochs == [{"loss": 1.0}] and not other.finished
    one.epochs.append({"loss": 0.9})
    one.alpha_curve = [{"alpha": 0.0, "recall@1": 0.75, "recall@10": 1.0}]
    other.load(copy.deepcopy(one.state()))
    assert other.alpha_curve == one.alpha_curve and other.finished


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({}, "winner_reference", np.nan),
        ({}, "pair_weight", np.inf),
        ({"beta": 1e39}, "p_winner", 0.9),
        ({"pretrain_weight": 1e39}, "p_winner", 0.9),
    ],
)
def test_epoch_that_diverges_ends_at_once_changes_no_weight_and_ends_the_training(
    folder, changes, name, value
):
    subject = learner(folder, epochs=3, num_steps=5, **changes)
    before = weights(subject)
    batch = make([0, 1])
    batch[name] = np.full_like(batch[name], value)
    means = subject.epoch(iter([batch]))  # the other four are not asked for
    assert means.isnan().all() and not changed_names(weights(subject), before)
    subject.epochs.append({"epoch": 1, "loss": means[0].item()})
    assert subject.finished
    with pytest.raises(
        UserError, match=r"diverged in epoch 1: .* no encoder is registered: set a smaller align"
    ):
        check_finite(subject.state())


def test_encoder_with_a_weight_that_is_not_finite_is_not_registered(folder):
    subject = learner(folder)
    subject.epochs.append({"epoch": 1, "loss": 0.5})
    check_finite(subject.state())
    with torch.no_grad():
        next(iter(subject.parameters)).view(-1)[0] = torch.inf
    with pytest.raises(UserError, match="diverged in epoch 1"):
        check_finite(subject.state())


def test_an_epoch_with_too_few_batches_fails(folder):
    with pytest.raises(AssertionError):
        learner(folder, num_steps=2).epoch([make([0])])


def test_the_learning_rate_rises_then_falls_to_zero():
    factors = [learning_rate_factor(step, num_steps=10, warmup=0.2) for step in range(11)]
    assert factors[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert factors[6] == pytest.approx(0.5) and factors[10] == pytest.approx(0)
    assert factors[2:] == sorted(factors[2:], reverse=True)
    assert learning_rate_factor(0, num_steps=1, warmup=0.1) == 1
