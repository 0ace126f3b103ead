"""Every method that predicts people's votes, from the floor to the alignment of an encoder.

Hyperparameters are chosen inside the training groups: the ridge by leave-one-out error, the last step of DPO
by the loss on photographs set aside. The kinds of features and kernels, however, were chosen by comparing
them on all groups, which favours the best of them.
"""

from collections.abc import Callable, Sequence

import numpy as np

from actors.encoder import Encoder
from actors.scorers import PromptPairs
from cluster import terminal
from lab.photographs.agreement import held_out_scores
from lab.photographs.dataset import Fold, RatedPhotographs
from lab.photographs.features import Features
from lab.photographs.votes_training import Mode, TrainingOptions, align_with_votes, query_scores

PROMPTS = ("beautiful, award winning photo", "bad photo, ugly")
RIDGES = np.logspace(-2, 4, 25)
MODES: tuple[Mode, ...] = ("text", "both")
# The references of the report and what they are; `ceiling` comes from the votes alone.
REFERENCES = {
    "floor": "ridge regression on colour and edge statistics",
    "ceiling": "one rater against the majority of the others",
    "subject": "not a fair method: the mean rating of other photographs whose subject has the same name",
}
METHODS = {
    "query": "the unchanged encoder: cosine of the photograph and the pair's query",
    "prompts": f"the unchanged encoder: closer to {PROMPTS[0]!r} than to {PROMPTS[1]!r}",
    "frozen": "ridge regression on statistics of the encoder's frozen stages",
    "dpo_text": "DPO on the votes, text tower only: cosine of the photograph and the pair's query",
    "dpo_both": "DPO on the votes, both towers: cosine of the photograph and the pair's query",
    "kernel": "Gaussian kernels on colour and edge statistics",
    "combination": "Gaussian kernels on colour and edge statistics and on the encoder's frozen stages",
}
PRIOR_WEIGHT = 2  # photographs that the mean of the category counts as


def all_scores(
    rated: RatedPhotographs, encoder: Encoder, features: Features, seeds: Sequence[int]
) -> dict[str, np.ndarray]:
    """Method -> held-out scores, float [S, P, 2]. S is the number of seeds for DPO, else 1."""
    statistics, stages, pixels, vectors = features
    prompts = PromptPairs.of(encoder.encode_texts, encoder.temperature, (PROMPTS,))
    deterministic: dict[str, Callable[[Fold], np.ndarray]] = {
        "floor": lambda fold: ridge_scores([[np.hstack(statistics)]], rated.ratings, fold),
        "subject": lambda fold: subject_scores(rated, fold),
        "query": lambda _: query_scores(encoder, vectors, rated),
        "prompts": lambda _: prompts.score(vectors),
        "frozen": lambda fold: ridge_scores([stages], rated.ratings, fold),
        "kernel": lambda fold: ridge_scores([statistics], rated.ratings, fold, gaussian=True),
        "combination": lambda fold: ridge_scores([statistics, stages], rated.ratings, fold, gaussian=True),
    }
    scores = {name: held_out_scores(rated, method)[None] for name, method in deterministic.items()}
    for mode in MODES:
        runs = [dpo_scores(rated, encoder, pixels, mode=mode, seed=seed) for seed in seeds]
        scores[f"dpo_{mode}"] = np.stack(runs)
    return scores


def dpo_scores(
    rated: RatedPhotographs, encoder: Encoder, pixels: np.ndarray, *, mode: Mode, seed: int
) -> np.ndarray:
    """Held-out scores of one training run for each fold, float [P, 2]."""
    terminal.say(f"photographs: DPO, mode {mode}, seed {seed}")

    def train(fold: Fold) -> np.ndarray:
        options = TrainingOptions()
        return align_with_votes(encoder, pixels, rated, fold, mode=mode, options=options, seed=seed)

    return held_out_scores(rated, train)


def ridge_scores(
    families: Sequence[Sequence[np.ndarray]], ratings: np.ndarray, fold: Fold, *, gaussian: bool = False
) -> np.ndarray:
    """Ridge regression of the ratings, float [N], on blocks of features, float [N, D]; returns float [N].

    Blocks are standardised on the training photographs. Families weigh the same, and so do the blocks of a
    family. The ridge is chosen by leave-one-out error. `gaussian` applies a Gaussian kernel to each block:
    its width follows from D, and Nystroem is exact because every training photograph is a landmark.
    """
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    parts = []
    for family in families:
        for block in family:
            part = StandardScaler().fit(block[fold.train]).transform(block) / np.sqrt(block.shape[1])
            if gaussian:
                kernel = Nystroem(gamma=0.5, n_components=len(fold.train), random_state=0)
                part = kernel.fit(part[fold.train]).transform(part)
            parts.append(part / np.sqrt(len(family)))
    features = np.hstack(parts)
    return RidgeCV(RIDGES).fit(features[fold.train], ratings[fold.train]).predict(features)


def subject_scores(rated: RatedPhotographs, fold: Fold) -> np.ndarray:
    """Mean rating of the training photographs of the same subject, shrunk to the category mean; float [N].

    This method reads the name of the subject, which no other method sees: its lead over them is what
    recognising the subject would be worth.
    """
    train_ratings = rated.ratings[fold.train]
    scores = np.empty(len(rated.files))
    for row in range(len(scores)):
        same_subject, same_category = (
            train_ratings[labels[fold.train] == labels[row]] for labels in (rated.subjects, rated.categories)
        )
        prior = same_category.mean() if len(same_category) else train_ratings.mean()
        total = same_subject.sum() + PRIOR_WEIGHT * prior
        scores[row] = total / (len(same_subject) + PRIOR_WEIGHT)
    return scores
