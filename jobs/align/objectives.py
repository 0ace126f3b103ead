"""The losses of alignment, as pure functions on tensors.

Scores are cosine similarities of a query and an image, already divided by tau, the encoder's temperature:
log pi(y | q) up to the normaliser of the query, which cancels between the two images of a pair.

Pairwise objectives take the four scores of each pair and return losses [B] and the implicit rewards of chosen
and rejected, [B] each, detached; no gradient reaches the reference. `label_smoothing` is the probability in
[0, 1] that a label is wrong, one number or one per pair: a soft label p = P(chosen is better) is
`label_smoothing = 1 - p`, and the loss is the mean of both directions, weighted by p. Listwise objectives see
a query's images as one list. `preference_losses` puts them all behind one interface.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from cluster.profile import Objective

Losses = tuple[Tensor, Tensor, Tensor]


def dpo_loss(
    policy_chosen_scores: Tensor,
    policy_rejected_scores: Tensor,
    reference_chosen_scores: Tensor,
    reference_rejected_scores: Tensor,
    *,
    beta: float,
    label_smoothing: float | Tensor = 0.0,
) -> Losses:
    """Direct preference optimisation: -log sigmoid(beta * m) (arXiv 2305.18290, eq. 7; soft labels: cDPO).

    m is the margin: policy minus reference of the chosen, less that of the rejected.
    """
    chosen = policy_chosen_scores - reference_chosen_scores.detach()
    rejected = policy_rejected_scores - reference_rejected_scores.detach()
    return _of_margin(
        lambda margin: -functional.logsigmoid(beta * margin), chosen, rejected, beta, label_smoothing
    )


def ipo_loss(
    policy_chosen_scores: Tensor,
    policy_rejected_scores: Tensor,
    reference_chosen_scores: Tensor,
    reference_rejected_scores: Tensor,
    *,
    beta: float,
    label_smoothing: float | Tensor = 0.0,
) -> Losses:
    """Identity preference optimisation: (m - 1 / (2 beta))^2 (arXiv 2310.12036).

    The margin has a goal, where DPO's grows as long as it is trained.
    """
    chosen = policy_chosen_scores - reference_chosen_scores.detach()
    rejected = policy_rejected_scores - reference_rejected_scores.detach()
    return _of_margin(lambda margin: (margin - 1 / (2 * beta)) ** 2, chosen, rejected, beta, label_smoothing)


def hinge_loss(
    policy_chosen_scores: Tensor,
    policy_rejected_scores: Tensor,
    reference_chosen_scores: Tensor,
    reference_rejected_scores: Tensor,
    *,
    beta: float,
    label_smoothing: float | Tensor = 0.0,
) -> Losses:
    """SLiC's hinge: max(0, 1 - beta * m) (arXiv 2305.10425). A pair won by 1 / beta is left alone."""
    chosen = policy_chosen_scores - reference_chosen_scores.detach()
    rejected = policy_rejected_scores - reference_rejected_scores.detach()
    return _of_margin(
        lambda margin: functional.relu(1 - beta * margin), chosen, rejected, beta, label_smoothing
    )


def simpo_loss(
    policy_chosen_scores: Tensor,
    policy_rejected_scores: Tensor,
    *,
    beta: float,
    target_margin: float,
    label_smoothing: float | Tensor = 0.0,
) -> Losses:
    """SimPO, reference-free: -log sigmoid(beta * (chosen - rejected) - target_margin) (arXiv 2405.14734).

    Images have no length to normalise by. `target_margin` is in units of reward, >= 0.
    """
    chosen, rejected = policy_chosen_scores, policy_rejected_scores
    return _of_margin(
        lambda margin: -functional.logsigmoid(beta * margin - target_margin),
        chosen, rejected, beta, label_smoothing,
    )  # fmt: skip


def kto_loss(
    policy_chosen_scores: Tensor,
    policy_rejected_scores: Tensor,
    reference_chosen_scores: Tensor,
    reference_rejected_scores: Tensor,
    *,
    beta: float,
    label_smoothing: float | Tensor = 0.0,
) -> Losses:
    """Kahneman-Tversky optimisation on pairs: the mean of what the chosen and the rejected lose.

    1 - sigmoid(beta * (chosen - z_rejected)) and 1 - sigmoid(beta * (z_chosen - rejected)), where chosen and
    rejected are policy minus reference and z is the batch mean of that, at least 0 and without gradient: from
    there gain and loss are felt (arXiv 2402.01306, in the form for pairs). A wrong label swaps the two.
    """
    chosen = policy_chosen_scores - reference_chosen_scores.detach()
    rejected = policy_rejected_scores - reference_rejected_scores.detach()
    from_chosen, from_rejected = (part.mean().clamp(min=0).detach() for part in (chosen, rejected))
    right = torch.sigmoid(beta * (from_rejected - chosen)) + torch.sigmoid(beta * (rejected - from_chosen))
    wrong = torch.sigmoid(beta * (from_chosen - rejected)) + torch.sigmoid(beta * (chosen - from_rejected))
    losses = (right * (1 - label_smoothing) + wrong * label_smoothing) / 2
    return losses, beta * chosen.detach(), beta * rejected.detach()


def plackett_luce_loss(policy_scores: Tensor, reference_scores: Tensor, *, beta: float) -> Tensor:
    """Listwise DPO: -log P(this order) under Plackett-Luce, one loss per place (arXiv 2305.18290, appendix).

    Scores of one query's N images, best first, float [N]; returns [N - 1]: at each place but the last, the
    negative log-probability that the image there is drawn before all that follow, by reward
    beta * (policy - reference).
    """
    rewards = beta * (policy_scores - reference_scores.detach())
    following = torch.logcumsumexp(rewards.flip(0), dim=0).flip(0)
    return (following - rewards)[:-1]


def lambda_weights(
    values: Tensor, chosen: Tensor, rejected: Tensor, pair_weight: Tensor | None = None
) -> Tensor:
    """How much DCG changes when the two images of each pair change places, scaled to a mean of 1, float [B].

    |2^v_c - 2^v_r| * |1 / log2(1 + rank_c) - 1 / log2(1 + rank_r)| (RankDPO, arXiv 2410.18013). `values`
    [N] in [0, 1] are the images' grades, the ranks those of their order; `chosen` and `rejected` int64 [B]
    are places in it. `pair_weight` [B] > 0, all 1 if None, weighs the mean: the pairs that weigh little are
    also those that change little, and their query must not count for more. All are 1 where none differs.
    """
    pair_weight = torch.ones_like(values[chosen]) if pair_weight is None else pair_weight
    ranks = 1 + values.argsort(descending=True, stable=True).argsort()
    gain, discount = 2**values, 1 / torch.log2(1 + ranks.to(values.dtype))
    weights = (gain[chosen] - gain[rejected]).abs() * (discount[chosen] - discount[rejected]).abs()
    mean = (pair_weight * weights).sum() / pair_weight.sum()
    return weights / mean if mean > 0 else torch.ones_like(weights)


def win_shares(
    p_chosen: Tensor,
    chosen: Tensor,
    rejected: Tensor,
    num_images: int,
    pair_weight: Tensor | None = None,
) -> Tensor:
    """Each image's mean probability to win its pairs, in [0, 1], float [N]: the grade that pairs give it.

    `p_chosen` [B] in [0, 1] is P(chosen is better); `chosen` and `rejected` int64 [B] in [0, N);
    `pair_weight` [B] > 0, all 1 if None, weighs the mean. One half for an image without pairs.
    """
    pair_weight = torch.ones_like(p_chosen) if pair_weight is None else pair_weight
    places = torch.cat([chosen, rejected])
    parts = torch.cat([p_chosen * pair_weight, (1 - p_chosen) * pair_weight]), pair_weight.repeat(2)
    won, weight = (part.new_zeros(num_images).index_add(0, places, part) for part in parts)
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
    """The losses of a batch's B pairs by name, with their rewards: see the module.

    `policy` and `reference` are (chosen, rejected) scores, float [B]; `p_chosen` float [B] in [0, 1]; `query`
    int64 [B] and `images`, (chosen, rejected) int64 [B], say which query and images a pair is of.

    The losses are not weighted yet: the caller takes the mean by `pair_weight` (float [B] > 0, all 1 if
    None). Listwise objectives grade a query's images by it too. Under `plackett_luce` every pair of a query
    has the query's own loss, and under `rank_dpo` the lambdas have a weighted mean of 1, so that the weighted
    mean over a query's pairs is what the query loses, whatever the objective.
    """
    soft = {"beta": beta, "label_smoothing": 1 - p_chosen}
    if objective == "simpo":
        return simpo_loss(*policy, target_margin=target_margin, **soft)
    if objective in PAIRWISE:
        return PAIRWISE[objective](*policy, *reference, **soft)
    losses, *rewards = dpo_loss(*policy, *reference, **soft)
    pair_weight = torch.ones_like(p_chosen) if pair_weight is None else pair_weight
    for number in query.unique():
        mine = query == number
        chosen, rejected = _places(*(side[mine] for side in images))
        # Of the heaviest: equal weights become ones, and equal grades are not told apart by rounding.
        weight = pair_weight[mine] / pair_weight[mine].max()
        num_images = 1 + int(torch.maximum(chosen, rejected).max())
        values = win_shares(p_chosen[mine], chosen, rejected, num_images, weight)
        if objective == "rank_dpo":
            own = losses[mine] * lambda_weights(values, chosen, rejected, weight)
        else:
            order = values.argsort(descending=True, stable=True)
            scores = [
                _of_images(*(side[mine] for side in pair), chosen, rejected)[order]
                for pair in (policy, reference)
            ]
            own = plackett_luce_loss(*scores, beta=beta).mean().repeat(len(chosen))
        losses = losses.masked_scatter(mine, own)
    return losses, *rewards


PAIRWISE: dict[str, Callable[..., Losses]] = {
    "dpo": dpo_loss,
    "ipo": ipo_loss,
    "hinge": hinge_loss,
    "kto": kto_loss,
}


def _of_margin(
    loss: Callable[[Tensor], Tensor],
    chosen: Tensor,
    rejected: Tensor,
    beta: float,
    label_smoothing: float | Tensor,
) -> Losses:
    """The loss of the margin as labelled and of its reverse, weighted by how sure the label is; rewards."""
    margin = chosen - rejected
    losses = loss(margin) * (1 - label_smoothing) + loss(-margin) * label_smoothing
    return losses, beta * chosen.detach(), beta * rejected.detach()


def _places(chosen: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor]:
    """Image numbers -> places 0 to N - 1 among the distinct ones."""
    _, places = torch.cat([chosen, rejected]).unique(return_inverse=True)
    return tuple(places.tensor_split(2))


def _of_images(chosen_scores: Tensor, rejected_scores: Tensor, chosen: Tensor, rejected: Tensor) -> Tensor:
    """Scores of pairs [B] -> the score of each image, [N]; an image has one and the same in all its pairs."""
    places = torch.cat([chosen, rejected]).tolist()
    first = {place: row for row, place in reversed(list(enumerate(places)))}
    rows = torch.tensor([first[place] for place in range(len(first))], device=chosen.device)
    return torch.cat([chosen_scores, rejected_scores])[rows]
