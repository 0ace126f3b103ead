"""The losses of alignment, as pure functions on tensors.

Scores are cosine similarities of a query and an image, already divided by tau, the encoder's temperature:
log pi(y | q) up to the normaliser of the query, which cancels between the two images of a pair.
"""

import torch
from torch import Tensor
from torch.nn import functional


def dpo_loss(
    policy_chosen_scores: Tensor,
    policy_rejected_scores: Tensor,
    reference_chosen_scores: Tensor,
    reference_rejected_scores: Tensor,
    *,
    beta: float,
    label_smoothing: float | Tensor = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Direct preference optimisation, one loss per pair (arXiv 2305.18290, eq. 7; soft labels: cDPO).

    Scores are float [B]. `label_smoothing` is the probability in [0, 1] that a label is wrong, one number
    or one per pair: a soft label p = P(chosen is better) is `label_smoothing = 1 - p`.

    Returns losses [B], and the implicit rewards beta * (policy - reference) of chosen and rejected, [B] each,
    detached. No gradient reaches the reference.
    """
    chosen_logratio = policy_chosen_scores - reference_chosen_scores.detach()
    rejected_logratio = policy_rejected_scores - reference_rejected_scores.detach()
    margin = beta * (chosen_logratio - rejected_logratio)
    losses = -(
        functional.logsigmoid(margin) * (1 - label_smoothing)
        + functional.logsigmoid(-margin) * label_smoothing
    )
    return losses, beta * chosen_logratio.detach(), beta * rejected_logratio.detach()


def contrastive_loss(
    image_features: Tensor, text_features: Tensor, *, temperature: float, same: Tensor | None = None
) -> Tensor:
    """CLIP's symmetric InfoNCE over caption pairs, one loss per pair (arXiv 2103.00020, figure 3).

    Features are L2-normalised float [C, D]; row i of both is a pair, every other row a negative. `same`
    (bool [C, C]) marks pairs of rows with the same image or the same caption: they are no negatives of each
    other. Returns losses [C]; their mean is open_clip's `ClipLoss` when no two rows are the same.
    """
    similarity = image_features @ text_features.T / temperature
    if same is not None:
        others = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
        similarity = similarity.masked_fill(others, float("-inf"))
    target = torch.arange(len(similarity), device=similarity.device)
    image_to_text = functional.cross_entropy(similarity, target, reduction="none")
    text_to_image = functional.cross_entropy(similarity.T, target, reduction="none")
    return (image_to_text + text_to_image) / 2
