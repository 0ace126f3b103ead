"""What the nulls are fitted to: the training preferences and captions of an alignment.

Alignment minimises a preference loss plus a contrastive loss on captions, which protects accuracy. A null
that maximised the likelihood of the preferences alone would give up accuracy for beauty, and so be a weak
rival: its images stop matching the query. So both nulls are chosen by the same two parts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from actors.caption_pairs import contrastive_loss

EncodeTexts = Callable[[list[str]], np.ndarray]  # N texts -> float32 [N, D], L2-normalised


@dataclass(frozen=True)
class Evidence:
    """Preferences grouped by query, and caption pairs, with the encoder's stored vectors of the images.

    queries: Q texts. starts: int [Q + 1]; the pairs of query q are the rows starts[q] to starts[q + 1].
    differences: float32 [P, D], the winner's vector minus the loser's. p_winner: float [P], the probability
    that the winner is better. weight: float [P] >= 0, with a positive sum. captions: C texts, and
    caption_images: float32 [C, D], the vectors of their images; both may be empty. temperature: tau of the
    encoder. caption_weight: weight of the captions beside the preferences, w_pt of the loss.
    """

    queries: Sequence[str]
    starts: np.ndarray
    differences: np.ndarray
    p_winner: np.ndarray
    weight: np.ndarray
    captions: Sequence[str]
    caption_images: np.ndarray
    temperature: float
    caption_weight: float

    @property
    def texts(self) -> list[str]:
        """The queries, then the captions."""
        return [*self.queries, *self.captions]

    def sample(self, num_queries: int, num_captions: int, seed: int) -> "Evidence":
        """The pairs of at most `num_queries` queries that are drawn by seed, and the first captions."""
        rng, total = np.random.default_rng(seed), len(self.queries)
        chosen = np.sort(rng.choice(total, min(num_queries, total), replace=False))
        rows = np.concatenate([np.arange(self.starts[q], self.starts[q + 1]) for q in chosen])
        return replace(
            self,
            queries=[self.queries[q] for q in chosen],
            starts=np.concatenate([[0], np.cumsum(np.diff(self.starts)[chosen])]),
            differences=self.differences[rows],
            p_winner=self.p_winner[rows],
            weight=self.weight[rows],
            captions=self.captions[:num_captions],
            caption_images=self.caption_images[:num_captions],
        )

    def log_likelihood(self, vectors: np.ndarray) -> float:
        """Mean log-likelihood of the preferences plus `caption_weight` times that of the captions.

        vectors: float32 [Q + C, D], L2-normalised, of the `texts` as a null changes them. By Bradley and
        Terry (doi 10.2307/2334029) the winner is better with probability sigmoid(margin), where the margin is
        the difference of the cosine similarities over the temperature. A caption belongs to its image, and an
        image to its caption, with the probability of the contrastive loss among the C pairs.
        """
        queries, captions = vectors[: len(self.queries)], vectors[len(self.queries) :]
        margins = np.concatenate(
            [
                self.differences[a:b] @ q
                for q, a, b in zip(queries, self.starts, self.starts[1:], strict=False)
            ]
        )
        margins = margins / self.temperature
        # log sigmoid(m) = -log(1 + exp(-m)), and log sigmoid(-m) = log sigmoid(m) - m.
        each = -np.logaddexp(0.0, -margins) - (1 - self.p_winner) * margins
        found = float(each @ self.weight / self.weight.sum())
        if not len(self.captions):
            return found
        images, texts = torch.as_tensor(self.caption_images), torch.as_tensor(captions)
        losses = contrastive_loss(images, texts, temperature=self.temperature)
        return found - self.caption_weight * float(losses.mean())
