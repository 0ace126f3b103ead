"""The rephrasing styles compared: what the baseline finds with each (table 3 of the paper).

No judge and no alignment: the difference is what the encoder knows but a plain query does not ask for.
"""

import numpy as np
import pyarrow as pa

from actors.engine import make_engine
from actors.rephraser import MODEL_STYLES, STYLES, compose, rephrase
from cluster import command
from cluster.profile import LanguageModel, Profile
from jobs.evaluate import language_models
from jobs.evaluate.config import TOP_K, EvaluateConfig
from jobs.evaluate.figures import per_query
from jobs.evaluate.figures.per_query import QueryValues
from jobs.evaluate.figures.registry import Metric
from jobs.evaluate.inputs import read_inputs
from jobs.evaluate.systems import EncoderSystem

ACCURATE_BEAUTY = Metric(
    "aesthetics_of_accurate",
    "beauty of accurate results",
    f"mean beauty of the accurate images among the first {TOP_K} results",
    "beauty, 0 to 1",
)


class RephraseInAllStyles:
    """Ray Data actor: batch with `query`, `style` -> adds `rephrased` and `rephrase_error`."""

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
    """style -> {"values": metric -> values by query, "num_failed", "num_words", "example"}.

    A query that a style could not rephrase is searched as it is. The config must have a truth.
    """
    profile, store = command.settings(config)
    record = store.encoder(config.baseline)
    inputs = read_inputs(config, store, [record])
    assert inputs.truth is not None
    system = EncoderSystem(store, record, profile.encoder, where=config.where)
    rephrased = _rephrase(profile, inputs.queries)
    found = {}
    for style in STYLES:
        texts, num_failed = rephrased[style]
        marks = per_query.marks(inputs.queries, system.search(texts, TOP_K), inputs.truth)
        found[style] = {
            "values": per_query.marked_values(*marks) | {ACCURATE_BEAUTY.key: _beauty_of_accurate(*marks)},
            "num_failed": num_failed,
            "num_words": float(np.mean([len(text.split()) for text in texts])),
            "example": texts[0],
        }
    return found


def _beauty_of_accurate(accurate: np.ndarray, aesthetics: np.ndarray) -> QueryValues:
    """Marks [Q, k] -> mean beauty of the accurate images; a query without any has no weight."""
    hits = accurate.sum(axis=1)
    beauty = np.where(accurate, aesthetics, 0.0).sum(axis=1) / np.maximum(hits, 1)
    return QueryValues(beauty, (hits > 0).astype(float))


def _rephrase(profile: Profile, queries: list[str]) -> dict[str, tuple[list[str], int]]:
    """style -> (texts in the order of the queries, how many could not be rephrased)."""
    table = pa.table({"query": queries * len(STYLES), "style": [s for s in STYLES for _ in queries]})
    arguments = {"language_model": profile.rephraser}
    stage = profile.rephraser.stage
    done = language_models.map_table(profile, RephraseInAllStyles, table, stage, arguments, "numpy")
    found = {(row["style"], row["query"]): row for row in done.to_pylist()}
    texts = {}
    for style in STYLES:
        rows = [found[style, query] for query in queries]
        failed = sum(bool(row["rephrase_error"]) for row in rows)
        texts[style] = ([row["rephrased"] or row["query"] for row in rows], failed)
    return texts
