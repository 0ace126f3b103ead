"""The preference losses against values in closed form."""

import itertools
import math
from typing import get_args

import pytest
import torch
from torch.nn import functional

from cluster.profile import Objective
from jobs.align.objectives import (
    dpo_loss,
    hinge_loss,
    ipo_loss,
    kto_loss,
    lambda_weights,
    plackett_luce_loss,
    preference_losses,
    simpo_loss,
    win_shares,
)

ANCHORED = [dpo_loss, ipo_loss, hinge_loss, kto_loss]


def scores(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_dpo_of_a_policy_equal_to_the_reference_is_ln_2():
    chosen, rejected = torch.randn(5), torch.randn(5)
    losses, chosen_rewards, rejected_rewards = dpo_loss(chosen, rejected, chosen, rejected, beta=0.7)
    assert losses.tolist() == pytest.approx([math.log(2)] * 5)
    assert chosen_rewards.tolist() == rejected_rewards.tolist() == [0.0] * 5


def test_dpo_losses_of_margins_0_10_20_at_beta_0_1():
    zero = torch.zeros(3)
    losses, _, _ = dpo_loss(torch.tensor([0.0, 10.0, 20.0]), zero, zero, zero, beta=0.1)
    assert losses.tolist() == pytest.approx([0.6931, 0.3133, 0.1269], abs=5e-5)


def test_rewards_are_beta_times_policy_minus_reference_and_detached():
    policy = scores(3.0), scores(1.0)
    _, chosen, rejected = dpo_loss(*policy, scores(1.0), scores(2.0), beta=0.5)
    assert (chosen.item(), rejected.item()) == (1.0, -0.5)
    assert not chosen.requires_grad and not rejected.requires_grad


def test_dpo_depends_only_on_differences_to_the_reference():
    near = dpo_loss(scores(3.0), scores(1.0), scores(2.0), scores(0.5), beta=1.0)[0]
    far = dpo_loss(scores(103.0), scores(51.0), scores(102.0), scores(50.5), beta=1.0)[0]
    assert near.item() == pytest.approx(far.item())
    assert near.item() == pytest.approx(math.log(1 + math.exp(-0.5)))


def test_dpo_gradient_raises_chosen_lowers_rejected_and_is_none_for_the_reference():
    chosen, rejected, reference_chosen, reference_rejected = (scores(0.3, -1.0) for _ in range(4))
    dpo_loss(chosen, rejected, reference_chosen, reference_rejected, beta=2.0)[0].sum().backward()
    assert chosen.grad.tolist() == pytest.approx([-1.0, -1.0])  # -beta * sigmoid(0)
    assert rejected.grad.tolist() == pytest.approx([1.0, 1.0])
    assert reference_chosen.grad is None and reference_rejected.grad is None


def test_label_smoothing_of_one_equals_swapping_the_pair():
    four = [torch.randn(6) for _ in range(4)]
    swapped = [four[1], four[0], four[3], four[2]]
    smoothed = dpo_loss(*four, beta=1.3, label_smoothing=1.0)[0]
    assert torch.allclose(smoothed, dpo_loss(*swapped, beta=1.3)[0], atol=1e-6)


def test_a_soft_label_mixes_both_directions_with_its_minimum_at_the_log_odds():
    p = 0.8
    margins = torch.linspace(-4, 4, 801, dtype=torch.float64)
    zero = torch.zeros_like(margins)
    label_smoothing = torch.full_like(margins, 1 - p)
    losses, _, _ = dpo_loss(margins, zero, zero, zero, beta=1.0, label_smoothing=label_smoothing)
    expected = -p * functional.logsigmoid(margins) - (1 - p) * functional.logsigmoid(-margins)
    assert torch.allclose(losses, expected)
    assert margins[losses.argmin()].item() == pytest.approx(math.log(p / (1 - p)), abs=0.01)


def test_dpo_losses_stay_finite_at_huge_margins():
    zero = torch.zeros(2)
    losses, _, _ = dpo_loss(torch.tensor([1e4, -1e4]), zero, zero, zero, beta=1.0)
    assert losses.tolist() == [0.0, 1e4]


def test_ipo_is_the_squared_distance_to_its_target_margin():
    losses, _, _ = ipo_loss(scores(3.0, 0.0), scores(1.0, 0.0), scores(1.0, 0.0), scores(1.0, 0.0), beta=0.25)
    assert losses.tolist() == [0.0, 4.0]  # the target is a margin of 2


def test_hinge_is_zero_from_a_margin_of_one_over_beta():
    zero = torch.zeros(3)
    losses, _, _ = hinge_loss(torch.tensor([0.0, 1.0, 2.0]), zero, zero, zero, beta=0.5)
    assert losses.tolist() == [1.0, 0.5, 0.0]


def test_simpo_subtracts_its_target_margin_and_needs_no_reference():
    losses, chosen, rejected = simpo_loss(scores(2.0), scores(1.0), beta=1.5, target_margin=0.5)
    assert losses.item() == pytest.approx(math.log(1 + math.exp(-1.0)))
    assert (chosen.item(), rejected.item()) == (3.0, 1.5)


def test_kto_of_two_pairs_computed_by_hand():
    """The chosen gained 2 and 0 (mean 1), the rejected lost 1 and 3 (mean below 0, clamped to 0)."""
    zero = torch.zeros(2)
    losses, _, _ = kto_loss(torch.tensor([2.0, 0.0]), torch.tensor([-1.0, -3.0]), zero, zero, beta=1.0)
    of_minus_2, of_minus_4 = (1 / (1 + math.exp(x)) for x in (2, 4))
    assert losses.tolist() == pytest.approx([of_minus_2, (0.5 + of_minus_4) / 2])


@pytest.mark.parametrize("loss", ANCHORED)
def test_a_wrong_label_equals_the_swapped_pair(loss):
    four = [torch.randn(6, dtype=torch.float64) for _ in range(4)]
    swapped = [four[1], four[0], four[3], four[2]]
    assert torch.allclose(loss(*four, beta=0.8, label_smoothing=1.0)[0], loss(*swapped, beta=0.8)[0])


@pytest.mark.parametrize("loss", ANCHORED)
def test_every_objective_raises_the_chosen_and_has_no_gradient_to_the_reference(loss):
    chosen, rejected, *reference = (scores(0.1, -0.2) for _ in range(4))
    loss(chosen, rejected, *reference, beta=0.5)[0].sum().backward()
    assert (chosen.grad < 0).all() and (rejected.grad > 0).all()
    assert all(part.grad is None for part in reference)


def test_plackett_luce_is_the_probability_of_an_order():
    rewards = torch.tensor([0.7, -0.1, 0.4], dtype=torch.float64)
    zero = torch.zeros(3, dtype=torch.float64)
    probabilities = [
        math.exp(-plackett_luce_loss(rewards[list(order)], zero, beta=1.0).sum().item())
        for order in itertools.permutations(range(3))
    ]
    assert sum(probabilities) == pytest.approx(1.0)
    weights = rewards.exp()
    by_hand = weights[0] / weights.sum() * weights[1] / weights[1:].sum()
    assert probabilities[0] == pytest.approx(by_hand.item())


def test_plackett_luce_of_two_images_equals_dpo():
    policy, reference = torch.tensor([1.2, 0.3]), torch.tensor([0.4, 0.9])
    listwise = plackett_luce_loss(policy, reference, beta=0.7)
    pairwise = dpo_loss(policy[:1], policy[1:], reference[:1], reference[1:], beta=0.7)[0]
    assert listwise.tolist() == pytest.approx(pairwise.tolist())


def test_win_shares_of_three_images_computed_by_hand():
    p, chosen, rejected = torch.tensor([0.9, 0.8, 0.6]), torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2])
    assert win_shares(p, chosen, rejected, 4).tolist() == pytest.approx([0.85, 0.35, 0.3, 0.5])


def test_lambda_weights_are_changes_of_dcg_computed_by_hand():
    values, chosen, rejected = torch.tensor([0.0, 1.0]), torch.tensor([1]), torch.tensor([0])
    assert lambda_weights(values, chosen, rejected).tolist() == [1.0]  # a single pair is its own mean
    values, chosen, rejected = torch.tensor([1.0, 0.5, 0.0]), torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2])
    discounts = [1 / math.log2(1 + rank) for rank in (1, 2, 3)]
    raw = [
        (2 - math.sqrt(2)) * (discounts[0] - discounts[1]),
        (2 - 1) * (discounts[0] - discounts[2]),
        (math.sqrt(2) - 1) * (discounts[1] - discounts[2]),
    ]
    expected = [weight / (sum(raw) / 3) for weight in raw]
    assert lambda_weights(values, chosen, rejected).tolist() == pytest.approx(expected, rel=1e-5)
    assert lambda_weights(torch.ones(3), chosen, rejected).tolist() == [1.0, 1.0, 1.0]


def batch_of(num_images: list[int], seed: int = 0) -> dict:
    """All pairs of each query's images; images are numbered query by query, and each has one score."""
    generator = torch.Generator().manual_seed(seed)
    rows = [(q, a, b) for q, n in enumerate(num_images) for a, b in itertools.combinations(range(n), 2)]
    query, a, b = torch.tensor(rows).T
    first = torch.tensor([0, *itertools.accumulate(num_images)])[query]
    policy, reference = (torch.randn(sum(num_images), generator=generator) for _ in range(2))
    chosen, rejected = first + a, first + b
    return {
        "policy": (policy[chosen], policy[rejected]),
        "reference": (reference[chosen], reference[rejected]),
        "p_chosen": torch.full((len(rows),), 0.9),
        "query": query,
        "images": (chosen, rejected),
        "scores": (policy, reference),
    }


def part_of(batch: dict, mask: torch.Tensor) -> dict:
    """The pairs of the batch that `mask` selects."""
    return {
        name: tuple(side[mask] for side in value) if isinstance(value, tuple) else value[mask]
        for name, value in batch.items()
    }


@pytest.mark.parametrize(
    "objective", sorted({*get_args(Objective)} - {"kto"})
)  # kto's reference point is a batch mean
def test_a_batch_of_two_queries_equals_each_query_alone(objective):
    batch = batch_of([4, 3])
    batch.pop("scores")
    losses = preference_losses(objective, **batch, beta=0.5, target_margin=0.3)[0]
    assert losses.shape == (9,)
    for index in (0, 1):
        of_query = batch["query"] == index
        alone = preference_losses(objective, **part_of(batch, of_query), beta=0.5, target_margin=0.3)[0]
        assert torch.allclose(losses[of_query], alone, atol=1e-6)


def test_each_pair_of_plackett_luce_has_the_loss_of_its_querys_order():
    batch = batch_of([4])
    policy, reference = batch.pop("scores")
    losses = preference_losses("plackett_luce", **batch, beta=0.5, target_margin=0.0)[0]
    assert losses.tolist() == pytest.approx(
        [plackett_luce_loss(policy, reference, beta=0.5).mean().item()] * 6
    )
