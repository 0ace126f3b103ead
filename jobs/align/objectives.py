"""The preference losses of alignment, as pure functions on tensors.

A score is the cosine similarity of a query and an image, already divided by tau, the encoder's temperature.
It equals log pi(y | q) up to the query's normaliser, which cancels between the two images of a pair.

Pairwise objectives take the four scores of each pair. They return losses [B] and the implicit rewards of
chosen and rejected, [B] each, detached; no gradient reaches the reference. `label_smoothing` is the
probability in [0, 1] that a label is wrong, one number or one per pair. A soft label p = P(chosen is better)
is `label_smoothing = 1 - p`: the loss is the mean of both directions, weighted by p and 1 - p. Listwise
objectives treat a query's images as one list. `preference_losses` is the common interface of all objectives.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from cluster.profile import Objective

Losses = tuple[Tensor, Tensor, Tensor]
PairwiseLoss = Callable[..., Losses]


def _of_margin(loss: Callable[[Tensor, float], Tensor]) -> PairwiseLoss:
    """A function of the margin and beta -> the pairwise objective of that loss.

    The margin m is (policy - reference) of the chosen image minus (policy - reference) of the rejected one.
    """

    def objective(
        policy_chosen_scores: Tensor,
        policy_rejected_scores: Tensor,
        reference_chosen_scores: Tensor,
        reference_rejected_scores: Tensor,
        *,
        beta: float,
        label_smoothing: float | Tensor = 0.0,
    ) -> Losses:
        chosen = policy_chosen_scores - reference_chosen_scores.detach()
        rejected = policy_rejected_scores - reference_rejected_scores.detach()
        margin = chosen - rejected
        losses = loss(margin, beta) * (1 - label_smoothing) + loss(-margin, beta) * label_smoothing
        return losses, beta * chosen.detach(), beta * rejected.detach()

    return objective


@_of_margin
def dpo_loss(margin: Tensor, beta: float) -> Tensor:
    """Direct preference optimisation: -log sigmoid(beta * m) (arXiv 2305.18290, eq. 7; soft labels: cDPO)."""
    return -functional.logsigmoid(beta * margin)


@_of_margin
def ipo_loss(margin: Tensor, beta: float) -> Tensor:
    """Identity preference optimisation: (m - 1 / (2 beta))^2 (arXiv 2310.12036).

    The loss has its minimum at a finite margin, while DPO's keeps falling as the margin grows.
    """
    return (margin - 1 / (2 * beta)) ** 2


@_of_margin
def hinge_loss(margin: Tensor, beta: float) -> Tensor:
    """RSO's hinge on the margin over the reference: max(0, 1 - beta * m) (arXiv 2309.06657, hinge-norm).

    Zero for margins of at least 1 / beta. SLiC's hinge (arXiv 2305.10425) has no reference.
    """
    return functional.relu(1 - beta * margin)


def simpo_loss(
    policy_chosen_scores: Tensor,
    policy_rejected_scores: Tensor,
    *,
    beta: float,
    target_margin: float,
    label_smoothing: float | Tensor = 0.0,
) -> Losses:
    """SimPO, reference-free: -log sigmoid(beta * (chosen - rejected) - target_margin) (arXiv 2405.14734).

    Without the length normalisation of the paper: images have no length. `target_margin` >= 0 is in units of
    reward.
    """
    loss = _of_margin(lambda margin, beta: -functional.logsigmoid(beta * margin - target_margin))
    zero = torch.zeros_like(policy_chosen_scores)
    return loss(
        policy_chosen_scores, policy_rejected_scores, zero, zero, beta=beta, label_smoothing=label_smoothing
    )


def kto_loss(
    policy_chosen_scores: Tensor,
    policy_rejected_scores: Tensor,
    reference_chosen_scores: Tensor,
    reference_rejected_scores: Tensor,
    *,
    beta: float,
    label_smoothing: float | Tensor = 0.0,
) -> Losses:
    """Kahneman-Tversky optimisation (arXiv 2402.01306) in its form for pairs.

    The mean of 1 - sigmoid(beta * (chosen - z_rejected)) and 1 - sigmoid(beta * (z_chosen - rejected)). Here
    chosen and rejected are policy minus reference, and z is the batch mean of that, clamped to at least 0 and
    without gradient: the reference point of gains and losses. A wrong label swaps chosen and rejected.
    """
    chosen = policy_chosen_scores - reference_chosen_scores.detach()
    rejected = policy_rejected_scores - reference_rejected_scores.detach()
    z_chosen, z_rejected = (part.mean().clamp(min=0).detach() for part in (chosen, rejected))
    right = torch.sigmoid(beta * (z_rejected - chosen)) + torch.sigmoid(beta * (rejected - z_chosen))
    wrong = torch.sigmoid(beta * (z_chosen - rejected)) + torch.sigmoid(beta * (chosen - z_rejected))
    losses = (right * (1 - label_smoothing) + wrong * label_smoothing) / 2
    return losses, beta * chosen.detach(), beta * rejected.detach()


def plackett_luce_loss(policy_scores: Tensor, reference_scores: Tensor, *, beta: float) -> Tensor:
    """Listwise DPO: -log P(this order) under Plackett-Luce, one loss per rank (arXiv 2305.18290, appendix).

    Takes the scores of one query's N images, best first, float [N]. Returns [N - 1]: for each rank but the
    last, the negative log-probability that its image is drawn before all that follow, by reward
    beta * (policy - reference).
    """
    rewards = beta * (policy_scores - reference_scores.detach())
    following = torch.logcumsumexp(rewards.flip(0), dim=0).flip(0)
    return (following - rewards)[:-1]


def lambda_weights(
    values: Tensor, chosen: Tensor, rejected: Tensor, pair_weight: Tensor | None = None
) -> Tensor:
    """The change of DCG when the two images of each pair swap ranks, scaled to a mean of 1, float [B].

    |2^v_c - 2^v_r| * |1 / log2(1 + rank_c) - 1 / log2(1 + rank_r)| (RankDPO, arXiv 2410.18013). `values` [N]
    in [0, 1] are the images' grades, by which they are ranked; `chosen` and `rejected` int64 [B] index them.
    The mean is weighted by `pair_weight` [B] > 0, all 1 if None: pairs of low weight also tend to change DCG
    little, and with a plain mean their query would count for more. If no swap changes DCG, all weights are 1.
    """
    pair_weight = torch.ones_like(values[chosen]) if pair_weight is None else pair_weight
    ranks = 1 + values.argsort(descending=True, stable=True).argsort()
    gain, discount = 2**values, 1 / torch.log2(1 + ranks.to(values.dtype))
    weights = (gain[chosen] - gain[rejected]).abs() * (discount[chosen] - discount[rejected]).abs()
    mean = (pair_weight * weights).sum() / pair_weight.sum()
    return weights / mean if mean > 0 else torch.ones_like(weights)


def win_shares(
    p_chosen: Tensor, chosen: Tensor, rejected: Tensor, num_images: int, pair_weight: Tensor | None = None
) -> Tensor:
    """Each image's mean probability of winning its pairs, in [0, 1], float [N]: its grade.

    `p_chosen` [B] in [0, 1] is P(chosen is better); `chosen` and `rejected` int64 [B] in [0, N). The mean is
    weighted by `pair_weight` [B] > 0, all 1 if None. An image without pairs gets one half.
    """
    pair_weight = torch.ones_like(p_chosen) if pair_weight is None else pair_weight
    images = torch.cat([chosen, rejected])
    parts = torch.cat([p_chosen * pair_weight, (1 - p_chosen) * pair_weight]), pair_weight.repeat(2)
    won, weight = (part.new_zeros(num_images).index_add(0, images, part) for part in parts)
    return torch.where(weight > 0, won / weight, torch.full_like(won, 0.5))


def preference_losses(
    objective: Objective,
    policy: tuple[Tensor, Tensor],
    reference: tuple[Tensor, Tensor],
    *,
    p_chosen: Tensor,
    query: Tensor,
    images: tuple[Tensor, Tensor],
    beta: float,
    target_margin: float,
    pair_weight: Tensor | None = None,
) -> Losses:
    """Losses and rewards of the B pairs of a batch, for the named objective.

    Args:
        objective: name of the loss.
        policy: (chosen, rejected) scores, float [B] each.
        reference: (chosen, rejected) scores, float [B] each.
        p_chosen: P(chosen is better), float [B] in [0, 1].
        query: index of each pair's query, int64 [B].
        images: (chosen, rejected) indices of each pair's images, int64 [B] each.
        beta: strength of the reference.
        target_margin: reward margin that `simpo` aims for.
        pair_weight: float [B] > 0, all 1 if None. Listwise objectives use it to grade a query's images.

    The losses are not weighted: the caller takes their mean, weighted by `pair_weight`. For every objective
    the weighted mean over a query's pairs is the loss of the query: under `plackett_luce` each pair has the
    loss of its query, and under `rank_dpo` the lambdas have a weighted mean of 1.
    """
    soft = {"beta": beta, "label_smoothing": 1 - p_chosen}
    if objective == "simpo":
        return simpo_loss(*policy, target_margin=target_margin, **soft)
    if objective in PAIRWISE:
        return PAIRWISE[objective](*policy, *reference, **soft)
    losses, chosen_rewards, rejected_rewards = dpo_loss(*policy, *reference, **soft)
    pair_weight = torch.ones_like(p_chosen) if pair_weight is None else pair_weight
    for index in query.unique():
        of_query = query == index
        of_pairs = torch.cat([side[of_query] for side in images])
        chosen, rejected = of_pairs.unique(return_inverse=True)[1].chunk(2)  # renumbered from 0 to N - 1
        # Relative to the largest weight: equal weights are then exactly 1, so rounding cannot break a tie of
        # equal grades.
        weight = pair_weight[of_query] / pair_weight[of_query].max()
        num_images = 1 + int(torch.maximum(chosen, rejected).max())
        grades = win_shares(p_chosen[of_query], chosen, rejected, num_images, weight)
        if objective == "rank_dpo":
            query_losses = losses[of_query] * lambda_weights(grades, chosen, rejected, weight)
        else:
            order = grades.argsort(descending=True, stable=True)
            policy_scores, reference_scores = (
                _image_scores(side[0][of_query], side[1][of_query], chosen, rejected)[order]
                for side in (policy, reference)
            )
            loss = plackett_luce_loss(policy_scores, reference_scores, beta=beta).mean()
            query_losses = loss.repeat(len(chosen))
        losses = losses.masked_scatter(of_query, query_losses)
    return losses, chosen_rewards, rejected_rewards


PAIRWISE: dict[str, PairwiseLoss] = {"dpo": dpo_loss, "ipo": ipo_loss, "hinge": hinge_loss, "kto": kto_loss}


def _image_scores(chosen_scores: Tensor, rejected_scores: Tensor, chosen: Tensor, rejected: Tensor) -> Tensor:
    """Scores of pairs [B] -> the score of each image, [N]; an image has the same score in all its pairs."""
    images = torch.cat([chosen, rejected]).tolist()
    first_row = {image: row for row, image in reversed(list(enumerate(images)))}
    rows = torch.tensor([first_row[image] for image in range(len(first_row))], device=chosen.device)
    return torch.cat([chosen_scores, rejected_scores])[rows]
