"""The losses of alignment, in closed form."""

import math

import pytest
import torch
from open_clip.loss import ClipLoss
from torch.nn import functional

from jobs.align.objectives import contrastive_loss, dpo_loss


def scores(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_a_policy_that_equals_the_reference_loses_ln_2():
    chosen, rejected = torch.randn(5), torch.randn(5)
    losses, chosen_rewards, rejected_rewards = dpo_loss(chosen, rejected, chosen, rejected, beta=0.7)
    assert losses.tolist() == pytest.approx([math.log(2)] * 5)
    assert chosen_rewards.tolist() == rejected_rewards.tolist() == [0.0] * 5


def test_losses_of_margins_0_10_20_at_beta_0_1():
    zero = torch.zeros(3)
    losses, _, _ = dpo_loss(torch.tensor([0.0, 10.0, 20.0]), zero, zero, zero, beta=0.1)
    assert losses.tolist() == pytest.approx([0.6931, 0.3133, 0.1269], abs=5e-5)


def test_rewards_are_beta_times_policy_minus_reference_and_detached():
    policy = scores(3.0), scores(1.0)
    _, chosen, rejected = dpo_loss(*policy, scores(1.0), scores(2.0), beta=0.5)
    assert (chosen.item(), rejected.item()) == (1.0, -0.5)
    assert not chosen.requires_grad and not rejected.requires_grad


def test_only_the_difference_to_the_reference_counts():
    near = dpo_loss(scores(3.0), scores(1.0), scores(2.0), scores(0.5), beta=1.0)[0]
    far = dpo_loss(scores(103.0), scores(51.0), scores(102.0), scores(50.5), beta=1.0)[0]
    assert near.item() == pytest.approx(far.item())
    assert near.item() == pytest.approx(math.log(1 + math.exp(-0.5)))


def test_gradient_raises_the_chosen_lowers_the_rejected_and_leaves_the_reference():
    chosen, rejected, reference_chosen, reference_rejected = (scores(0.3, -1.0) for _ in range(4))
    dpo_loss(chosen, rejected, reference_chosen, reference_rejected, beta=2.0)[0].sum().backward()
    assert chosen.grad.tolist() == pytest.approx([-1.0, -1.0])  # -beta * sigmoid(0)
    assert rejected.grad.tolist() == pytest.approx([1.0, 1.0])
    assert reference_chosen.grad is None and reference_rejected.grad is None


def test_label_smoothing_of_one_swaps_the_pair():
    four = [torch.randn(6) for _ in range(4)]
    swapped = [four[1], four[0], four[3], four[2]]
    smoothed = dpo_loss(*four, beta=1.3, label_smoothing=1.0)[0]
    assert torch.allclose(smoothed, dpo_loss(*swapped, beta=1.3)[0], atol=1e-6)


def test_a_soft_label_is_the_mixture_of_both_directions_and_least_at_its_log_odds():
    p = 0.8
    margins = torch.linspace(-4, 4, 801, dtype=torch.float64)
    zero = torch.zeros_like(margins)
    label_smoothing = torch.full_like(margins, 1 - p)
    losses, _, _ = dpo_loss(margins, zero, zero, zero, beta=1.0, label_smoothing=label_smoothing)
    expected = -p * functional.logsigmoid(margins) - (1 - p) * functional.logsigmoid(-margins)
    assert torch.allclose(losses, expected)
    assert margins[losses.argmin()].item() == pytest.approx(math.log(p / (1 - p)), abs=0.01)


def test_losses_stay_finite_at_huge_margins():
    zero = torch.zeros(2)
    losses, _, _ = dpo_loss(torch.tensor([1e4, -1e4]), zero, zero, zero, beta=1.0)
    assert losses.tolist() == [0.0, 1e4]


def unit(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


def test_contrastive_loss_is_that_of_open_clip():
    images, texts = unit(7, 5, seed=1), unit(7, 5, seed=2)
    losses = contrastive_loss(images, texts, temperature=0.05)
    assert losses.shape == (7,)
    expected = ClipLoss()(images, texts, logit_scale=torch.tensor(20.0))
    assert losses.mean().item() == pytest.approx(expected.item(), abs=1e-5)


def test_contrastive_loss_of_orthogonal_pairs_in_closed_form():
    features = torch.eye(4)
    losses = contrastive_loss(features, features, temperature=0.5)
    assert losses.tolist() == pytest.approx([math.log(math.exp(2) + 3) - 2] * 4)


def test_rows_of_the_same_caption_are_no_negatives_of_each_other():
    images, texts = unit(4, 6, seed=3), unit(4, 6, seed=4)
    same = torch.eye(4, dtype=torch.bool)
    same[0, 1] = same[1, 0] = True
    losses = contrastive_loss(images, texts, temperature=0.1, same=same)
    without_row_1 = contrastive_loss(images[[0, 2, 3]], texts[[0, 2, 3]], temperature=0.1)
    assert losses[0].item() == pytest.approx(without_row_1[0].item(), abs=1e-6)
    assert losses[2].item() > without_row_1[1].item()  # row 1 is still a negative of row 2
