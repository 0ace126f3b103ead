"""The null `suffix`: one constant phrase after every query, found by greedy search."""

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources

import numpy as np

from actors.nulls.evidence import EncodeTexts, Evidence

NUM_SCREENED = 8  # queries that every candidate is tried on
NUM_FINALISTS = 16  # candidates that are also tried on `NUM_QUERIES` queries and `NUM_CAPTIONS` captions
NUM_QUERIES, NUM_CAPTIONS = 48, 64
NUM_KEPT = 64  # candidates that are tried again after the first phrase
MAX_PHRASES = 4  # a text tower reads few words, and its first words count most
MAX_EXPECTATIONS = 200  # candidates from the rephrased queries, the most frequent ones


def candidates(rephrasings: Iterable[tuple[str, str]]) -> list[str]:
    """Common modifiers of prompts for photographs, and expectations of the rephrased training queries.

    rephrasings: (query, rephrased query). The expectations give the null the language model's own words.
    """
    common = (resources.files("actors.nulls") / "phrases.txt").read_text(encoding="utf-8").splitlines()
    counts = Counter(phrase for query, text in rephrasings for phrase in expectations(query, text))
    return list(dict.fromkeys([*common, *(phrase for phrase, _ in counts.most_common(MAX_EXPECTATIONS))]))


def expectations(query: str, rephrased: str) -> list[str]:
    """The phrases, separated by commas, that rephrasing has added to a query."""
    added = rephrased[len(query) :] if rephrased.startswith(query) else rephrased
    return [phrase for part in added.split(",") if (phrase := part.strip(" ."))]


def fit_suffix(evidence: Evidence, encode: EncodeTexts, phrases: Sequence[str], seed: int) -> str:
    """What to append to a query: the phrases that raise `Evidence.log_likelihood`, one by one, until none
    raises it further or there are `MAX_PHRASES`. Each phrase follows a comma; "" if none raises it.

    A round tries the phrases on a few queries, and the best of them on more queries and on captions, so that
    the search takes seconds with a small encoder. The first round tries all of them, and the others the best
    `NUM_KEPT` of the first. The suffix is chosen by the training preferences themselves, among phrases that
    include the language model's. This favours the null: who writes a phrase by hand has neither.
    """
    few = evidence.sample(NUM_SCREENED, 0, seed)
    more = evidence.sample(NUM_QUERIES, NUM_CAPTIONS, seed)
    suffix, best, tried = "", log_likelihoods(more, encode, [""])[0], list(phrases)
    for _ in range(MAX_PHRASES):
        longer = [f"{suffix}, {phrase}" for phrase in tried]
        order = np.argsort(-log_likelihoods(few, encode, longer), kind="stable")
        finalists = [longer[index] for index in order[:NUM_FINALISTS]]
        tried = [tried[index] for index in order[:NUM_KEPT]]
        found = log_likelihoods(more, encode, finalists)
        if found.max() <= best:
            break
        suffix, best = finalists[int(found.argmax())], found.max()
    return suffix


def log_likelihoods(evidence: Evidence, encode: EncodeTexts, suffixes: Sequence[str]) -> np.ndarray:
    """`Evidence.log_likelihood` with each of the suffixes, float [S]; all texts are encoded in one call."""
    texts = [text + suffix for suffix in suffixes for text in evidence.texts]
    vectors = np.split(encode(texts), len(suffixes))
    return np.array([evidence.log_likelihood(own) for own in vectors])
