"""The rephrasing styles compared: what the baseline finds with each (table 3 and figure 3 of the paper).

No judge and no alignment: the difference is what the encoder knows but a plain query does not ask for.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from actors.engine import make_engine
from actors.rephraser import MODEL_STYLES, STYLES, compose, rephrase
from cluster import command
from cluster.profile import LanguageModel, Profile
from jobs.evaluate import hpir, language_models
from jobs.evaluate.config import TOP_K, EvaluateConfig
from jobs.evaluate.figures import per_query
from jobs.evaluate.figures.per_query import QueryValues
from jobs.evaluate.figures.registry import AESTHETIC, METRICS, PRECISION, Metric
from jobs.evaluate.inputs import EvaluationInputs, read_inputs
from jobs.evaluate.systems import EncoderSystem
from lab.studio.latents import Latents
from lab.suite import people

ACCURATE_BEAUTY = Metric(
    "aesthetics_of_accurate",
    "beauty of accurate results",
    f"mean beauty of the accurate images among the first {TOP_K} results",
    "beauty, 0 to 1",
)


WIN_RATE = Metric(
    "win_rate_over_original",
    "win rate over the original query",
    "how often simulated people prefer the results to those of the original query",
)
STYLE_METRICS = {
    **{key: METRICS[key] for key in (PRECISION, AESTHETIC)},
    **{metric.key: metric for metric in (ACCURATE_BEAUTY, WIN_RATE)},
    **{key: METRICS[key] for key in ("hpir_accuracy", "hpir_aesthetic")},
}
NUM_SHOWN = 3  # queries whose results in every style are on the page


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


def measure(config: EvaluateConfig, latents: Mapping[str, Latents]) -> dict[str, dict]:
    """style -> {"values": metric -> values by query, "num_failed", "num_words", "example", "shown"}.

    A query that a style could not rephrase is searched as it is. The config must have a truth. People compare
    each style's results with those of the original queries. latents: of the gallery. "shown": query -> the
    image_ids of its results, for the first queries.
    """
    profile, store = command.settings(config)
    record = store.encoder(config.baseline)
    inputs = read_inputs(config, store, [record])
    assert inputs.truth is not None
    system = EncoderSystem(store, record, profile.encoder, where=config.where)
    queries = list(dict.fromkeys([*inputs.queries, *(query for query, _ in inputs.voted_pairs)]))
    rephrased = _rephrase(profile, queries)
    lists = {
        style: system.search([of[q] for q in inputs.queries], TOP_K) for style, (of, _) in rephrased.items()
    }
    found = {}
    for style, (texts, num_failed) in rephrased.items():
        marks = per_query.marks(inputs.queries, lists[style], inputs.truth)
        won = people.outcomes(latents, inputs.queries, lists[style], lists["original"], seed=config.seed)
        found[style] = {
            "values": per_query.marked_values(*marks)
            | {ACCURATE_BEAUTY.key: _beauty_of_accurate(*marks)}
            | {WIN_RATE.key: QueryValues.unweighted((won + 1) / 2)}
            | _agreement(system, inputs, texts),
            "num_failed": num_failed,
            "num_words": float(np.mean([len(text.split()) for text in texts.values()])),
            "example": texts[queries[0]],
            "shown": dict(zip(inputs.queries[:NUM_SHOWN], lists[style], strict=False)),
        }
    return found


def _agreement(
    system: EncoderSystem, inputs: EvaluationInputs, texts: Mapping[str, str]
) -> dict[str, QueryValues]:
    """Agreement with people's votes when each query is replaced by its text."""
    similarities = system.similarities([(texts[query], image_id) for query, image_id in inputs.voted_pairs])
    scores = {(query, i): similarities[texts[query], i] for query, i in inputs.voted_pairs}
    table = inputs.hpir_tables[0]
    agreed = per_query.agreement(table, hpir.group_means(table.rows, scores))
    return {f"hpir_{criterion}": of_criterion for criterion, of_criterion in agreed.items()}


def _beauty_of_accurate(accurate: np.ndarray, aesthetics: np.ndarray) -> QueryValues:
    """Marks [Q, k] -> mean beauty of the accurate images; a query without any has no weight."""
    hits = accurate.sum(axis=1)
    beauty = np.where(accurate, aesthetics, 0.0).sum(axis=1) / np.maximum(hits, 1)
    return QueryValues(beauty, (hits > 0).astype(float))


def _rephrase(profile: Profile, queries: list[str]) -> dict[str, tuple[dict[str, str], int]]:
    """style -> (query -> its text, how many could not be rephrased)."""
    table = pa.table({"query": queries * len(STYLES), "style": [s for s in STYLES for _ in queries]})
    arguments = {"language_model": profile.rephraser}
    stage = profile.rephraser.stage
    done = language_models.map_table(profile, RephraseInAllStyles, table, stage, arguments, "numpy")
    found = {(row["style"], row["query"]): row for row in done.to_pylist()}
    texts = {}
    for style in STYLES:
        rows = [found[style, query] for query in queries]
        failed = sum(bool(row["rephrase_error"]) for row in rows)
        texts[style] = ({row["query"]: row["rephrased"] or row["query"] for row in rows}, failed)
    return texts
