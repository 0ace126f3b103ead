"""The preference losses agree with TRL's code on random scores, to 1e-6: values, gradients, rewards.

TRL's trainers compute losses internally, from the log-probabilities that a model gives to tokens. These tests
create a trainer from its settings alone and give it a fake model, in which each image is one token and its
score the token's log-probability. So all completions have length 1, by which TRL's IPO divides. A trainer
returns the mean of a batch, so each call gets one pair.

Soft labels are compared for DPO only. TRL's `ipo`, `hinge` and `kto` have none, and its `simpo` defines them
differently: there a wrong label costs -log sigmoid(target_margin - beta * m), here as much as the swapped
pair, -log sigmoid(-beta * m - target_margin).
"""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from jobs.align.objectives import Losses, dpo_loss, hinge_loss, ipo_loss, kto_loss, simpo_loss

NUM_PAIRS = 16
BETAS = [0.1, 1.5]
SEEDS = range(4)


@pytest.fixture(scope="module")
def trl() -> SimpleNamespace:
    """TRL's trainers. Imported here, so that only the test worker that runs these tests pays for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        patch.setenv("VLLM_LOGGING_LEVEL", "ERROR")  # TRL sets this at import and does not reset it
        pytest.importorskip("trl")
        from trl.experimental.cpo import CPOTrainer
        from trl.trainer.dpo_trainer import DPOTrainer
        from trl.trainer.kto_trainer import KTOTrainer
    return SimpleNamespace(dpo=DPOTrainer, kto=KTOTrainer, cpo=CPOTrainer)


def random_scores(seed: int) -> tuple[Tensor, Tensor]:
    """Scores of policy and reference, float64 [2, B] each: chosen first, then rejected."""
    generator = torch.Generator().manual_seed(seed)
    policy, reference = 3 * torch.randn(2, 2, NUM_PAIRS, dtype=torch.float64, generator=generator)
    return policy.requires_grad_(), reference


def trainer_of(trainer_class: type, **settings):
    """A trainer without model, data and other processes."""
    trainer = object.__new__(trainer_class)
    vars(trainer).update(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(
            device=torch.device("cpu"), gather=lambda part: part, gather_for_metrics=lambda part: part
        ),
        precompute_ref_logps=True,
        aux_loss_enabled=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        **settings,
    )
    return trainer


def model_of(scores: Tensor):
    """A fake language model in which token i has the log-probability `scores[i]`."""

    def forward(input_ids: Tensor, **_) -> SimpleNamespace:
        log_probs = scores[input_ids[:, 1:]]
        nothing = torch.zeros_like(log_probs)
        return SimpleNamespace(
            log_probs=log_probs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool()
        )

    return forward


def completions(tokens: Tensor, prefix: str = "") -> dict[str, Tensor]:
    """The inputs that TRL's collators make of one prompt token, followed by one of `tokens` [N]."""
    input_ids = functional.pad(tokens[:, None], (1, 0))
    is_completion = torch.zeros_like(input_ids)
    is_completion[:, 1] = 1
    return {
        f"{prefix}input_ids": input_ids,
        f"{prefix}attention_mask": torch.ones_like(input_ids),
        f"{prefix}completion_mask": is_completion,
    }


def dpo_of_trl(
    trainer_class: type,
    policy: Tensor,
    reference: Tensor,
    loss_type: str,
    beta: float,
    label_smoothing: Tensor,
) -> Losses:
    """Losses and rewards of each pair; `label_smoothing` [B]."""
    losses, chosen_rewards, rejected_rewards = [], [], []
    for pair in range(NUM_PAIRS):
        trainer = trainer_of(
            trainer_class, beta=beta, label_smoothing=label_smoothing[pair].item(),
            loss_types=[loss_type], loss_weights=[1.0],
            f_divergence_type="reverse_kl", ld_alpha=None, use_weighting=False,
        )  # fmt: skip
        references = {"ref_chosen_logps": reference[0, [pair]], "ref_rejected_logps": reference[1, [pair]]}
        losses.append(
            trainer.compute_loss(model_of(policy[:, pair]), completions(torch.arange(2)) | references)
        )
        chosen_rewards += trainer._metrics["train"]["rewards/chosen"]
        rejected_rewards += trainer._metrics["train"]["rewards/rejected"]
    return torch.stack(losses), *to_rewards(chosen_rewards, rejected_rewards)


def kto_of_trl(
    trainer_class: type, policy: Tensor, reference: Tensor, side: int, beta: float
) -> tuple[Tensor, list[float]]:
    """Losses [B] and rewards of the chosen (side 0) or the rejected (side 1).

    TRL estimates the reference point from a second batch, with completions of other prompts. The form for
    pairs estimates it from the images of the other side, so these are the second batch here.
    """
    losses, rewards = [], []
    for pair in range(NUM_PAIRS):
        trainer = trainer_of(
            trainer_class,
            beta=beta,
            loss_type="kto",
            calculate_KL=True,
            desirable_weight=1.0,
            undesirable_weight=1.0,
        )
        others = torch.arange(NUM_PAIRS) + (1 - side) * NUM_PAIRS
        inputs = {
            **completions(torch.tensor([side * NUM_PAIRS + pair])),
            **completions(others, "KL_"),
            "label": torch.tensor([side == 0]),
            "ref_logps": reference[side, [pair]],
            "ref_KL_logps": reference[1 - side],
        }
        losses.append(trainer.compute_loss(model_of(policy.flatten()), inputs))
        rewards += trainer._metrics["train"]["rewards/chosen" if side == 0 else "rewards/rejected"]
    return torch.stack(losses), rewards


def to_rewards(chosen: list[float], rejected: list[float]) -> list[Tensor]:
    assert len(chosen) == len(rejected) == NUM_PAIRS
    return [torch.tensor(side, dtype=torch.float64) for side in (chosen, rejected)]


def assert_agreement(ours: Losses, theirs: Losses, policy: Tensor) -> None:
    assert ours[0].shape == theirs[0].shape == (NUM_PAIRS,)
    gradients = [torch.autograd.grad(losses.sum(), policy)[0] for losses, *_ in (ours, theirs)]
    assert gradients[0].abs().max() > 0
    for mine, other in zip([*ours, gradients[0]], [*theirs, gradients[1]], strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(
    ("loss", "loss_type"), [(dpo_loss, "sigmoid"), (ipo_loss, "ipo"), (hinge_loss, "hinge")]
)
def test_dpo_ipo_and_hinge_equal_those_of_trl(trl, loss, loss_type, beta, seed):
    policy, reference = random_scores(seed)
    theirs = dpo_of_trl(trl.dpo, policy, reference, loss_type, beta, torch.zeros(NUM_PAIRS))
    assert_agreement(loss(*policy, *reference, beta=beta), theirs, policy)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", BETAS)
def test_dpo_with_soft_labels_equals_that_of_trl(trl, beta, seed):
    """TRL's `sigmoid` has no label smoothing; `aot` is DPO with it on a sorted batch, here of one pair."""
    policy, reference = random_scores(seed)
    generator = torch.Generator().manual_seed(100 + seed)
    label_smoothing = torch.rand(NUM_PAIRS, dtype=torch.float64, generator=generator)
    theirs = dpo_of_trl(trl.dpo, policy, reference, "aot", beta, label_smoothing)
    ours = dpo_loss(*policy, *reference, beta=beta, label_smoothing=label_smoothing)
    assert_agreement(ours, theirs, policy)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", BETAS)
def test_simpo_equals_that_of_trl(trl, beta, seed):
    policy, _ = random_scores(seed)
    trainer = trainer_of(
        trl.cpo, beta=beta, loss_type="simpo", simpo_gamma=0.7, label_smoothing=0.0, alpha=0.0
    )
    ours = simpo_loss(*policy, beta=beta, target_margin=0.7)
    assert_agreement(ours, trainer.cpo_loss(*policy), policy)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", BETAS)
def test_kto_equals_that_of_trl_with_the_other_side_as_reference_point(trl, beta, seed):
    policy, reference = random_scores(seed)
    of_chosen, chosen_rewards = kto_of_trl(trl.kto, policy, reference, 0, beta)
    of_rejected, rejected_rewards = kto_of_trl(trl.kto, policy, reference, 1, beta)
    theirs = (of_chosen + of_rejected) / 2, *to_rewards(chosen_rewards, rejected_rewards)
    assert_agreement(kto_loss(*policy, *reference, beta=beta), theirs, policy)
