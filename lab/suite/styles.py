"""The rephrasing styles compared: what the encoder before alignment finds with each (the paper's table 3).

No judge and no alignment: this is the knowledge that an encoder holds and a plain query does not ask for.
"""

import numpy as np
import pyarrow as pa

from actors.engine import make_engine
from actors.rephraser import MODEL_STYLES, STYLES, compose, rephrase
from cluster import command
from cluster.profile import LanguageModel, Profile
from jobs.evaluate import language_models
from jobs.evaluate.asking import gather
from jobs.evaluate.config import TOP_K, EvaluateConfig
from jobs.evaluate.figures import metrics, per_query
from jobs.evaluate.systems import EncoderSystem

ACCURATE_BEAUTY = "aesthetics_of_accurate"


class RephraseInAllStyles:
    """Ray Data actor: batch with `query`, `style` -> adds `rephrased` and `rephrase_error`; one engine."""

    def __init__(self, *, language_model: LanguageModel) -> None:
        self.engine = make_engine(language_model)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        texts = np.array([""] * len(batch["query"]), dtype=object)
        errors = texts.copy()
        for style in set(batch["style"]):
            rows = np.flatnonzero(batch["style"] == style)
            queries = [str(query) for query in batch["query"][rows]]
            done = (
                rephrase(self.engine, queries, style)
                if style in MODEL_STYLES
                else [(compose(query, style, {}), "") for query in queries]
            )
            texts[rows], errors[rows] = (np.array(column, dtype=object) for column in zip(*done, strict=True))
        return {**batch, "rephrased": texts, "rephrase_error": errors}


def measure(config: EvaluateConfig) -> dict[str, dict]:
    """style -> {"series": metric -> values by query, "num_failed", "num_words", "example"}.

    Metrics are precision@5, aesthetic@5 and the mean true aesthetics of what is accurate in the top five. A
    query that a style could not rephrase stands for itself. Needs a truth.
    """
    profile, store = command.settings(config)
    record = store.encoder(config.baseline)
    asked = gather(config, store, [record])
    system = EncoderSystem(store, record, profile.encoder, where=config.where)
    rephrased = _rephrase(profile, asked.queries)
    found = {}
    for style in STYLES:
        texts, num_failed = rephrased[style]
        rows = [ids[:TOP_K] for ids in system.search(texts, TOP_K)]
        found[style] = {
            "series": _series(*per_query.true_marks(asked.queries, rows, asked.truth)),
            "num_failed": num_failed,
            "num_words": float(np.mean([len(text.split()) for text in texts])),
            "example": texts[0],
        }
    return found


def _series(accurate: np.ndarray, aesthetics: np.ndarray) -> dict[str, per_query.Series]:
    hits = accurate.sum(axis=1)
    beauty = (accurate * aesthetics).sum(axis=1) / np.maximum(hits, 1)
    return {
        f"precision@{TOP_K}": per_query.Series.even(metrics.precision_at(accurate)),
        f"aesthetic@{TOP_K}": per_query.Series.even(metrics.aesthetic_at(accurate, aesthetics)),
        ACCURATE_BEAUTY: per_query.Series(beauty, (hits > 0).astype(float)),
    }


def _rephrase(profile: Profile, queries: list[str]) -> dict[str, tuple[list[str], int]]:
    """style -> (texts in the order of the queries, how many could not be rephrased)."""
    asked = pa.table({"query": queries * len(STYLES), "style": [s for s in STYLES for _ in queries]})
    arguments = {"language_model": profile.rephraser}
    done = language_models.through_pool(
        profile, RephraseInAllStyles, asked, profile.rephraser.stage, arguments, "numpy"
    )
    found = {(row["style"], row["query"]): row for row in done.to_pylist()}
    texts = {}
    for style in STYLES:
        rows = [found[style, query] for query in queries]
        failed = sum(bool(row["rephrase_error"]) for row in rows)
        texts[style] = ([row["rephrased"] or row["query"] for row in rows], failed)
    return texts
