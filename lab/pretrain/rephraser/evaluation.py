"""Measures a mini rephraser as it is used in production: through vLLM, with its prompts and grammars.

For every kind of held-out query (`evaluation_queries.KINDS`) and every style that uses the model, it counts
how many answers parse, and what the rephrased queries keep and add (`expectation_check.check`). It returns
counts, not shares, so that every share can be given with an interval.
"""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from actors.engine import Engine, Reply, Request, make_engine
from actors.rephraser import MODEL_STYLES, rephrase
from cluster.profile import load_profile
from lab.pretrain.rephraser.evaluation_queries import KINDS, EvaluationQuery, untrained_queries
from lab.pretrain.rephraser.expectation_check import check

# The name of each count, and the title of its column in the model card.
FIGURES = {
    "parses_at_once": "parses at once",
    "parses": "parses, strict grammar included",
    "keeps_subject": "keeps the subject",
    "fits": "adds two or more suitable expectations, none unsuitable",
    "nothing_else": "adds no other words",
}
FigureCounts = dict[str, int]  # those of `FIGURES`, and `num_queries`
Evaluation = Mapping[str, Mapping[str, FigureCounts]]  # kind -> style -> counts
Z_95 = 1.959964


class CountingEngine:
    """An engine that counts the requests it receives."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self.num_requests = 0

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """The engine's replies."""
        self.num_requests += len(requests)
        return self.engine.generate(requests)


def measure(folder: str | Path, *, num_queries: int, seed: int, trained: Set[str]) -> Evaluation:
    """Counts for `num_queries` seeded queries of each kind, none of them in `trained`, in each style.

    The engine has the settings of the `mini` profile. Raises UserError when `folder` holds no checkpoint, and
    ValueError when a kind has too few queries.
    """
    queries_of_kinds = {kind: untrained_queries(kind, num_queries, seed, trained) for kind in KINDS}
    settings = load_profile("mini").rephraser.model_copy(update={"model": str(folder)})
    engine = make_engine(settings)
    return {
        kind: {style: count_figures(engine, queries, style) for style in MODEL_STYLES}
        for kind, queries in queries_of_kinds.items()
    }


def count_figures(engine: Engine, queries: Sequence[EvaluationQuery], style: str) -> FigureCounts:
    """How many answers have the property of each of `FIGURES`. A query without an answer has none."""
    counting = CountingEngine(engine)
    results = rephrase(counting, [query.text for query in queries], style)
    checked = [check(query, text) for query, (text, _) in zip(queries, results, strict=True)]
    has_answer = [text != "" for text, _ in results]
    return {
        "num_queries": len(queries),
        "parses_at_once": 2 * len(queries) - counting.num_requests,  # a failed answer is requested twice
        "parses": sum(has_answer),
        "keeps_subject": sum(text.keeps_subject for text in checked),
        "fits": sum(text.adds_suitable_only for text in checked),
        "nothing_else": sum(
            parses and not text.other_words for parses, text in zip(has_answer, checked, strict=True)
        ),
    }


def wilson(num_hits: int, num_all: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; its width is never zero, not even at 0 or 1."""
    share, shrink = num_hits / num_all, 1 + Z_95**2 / num_all
    middle = (share + Z_95**2 / (2 * num_all)) / shrink
    half = Z_95 / shrink * (share * (1 - share) / num_all + Z_95**2 / (4 * num_all**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def table(evaluation: Evaluation) -> str:
    """The table of the model card: one line for each kind and style, shares with their intervals."""
    head = ["queries", "style", *FIGURES.values()]
    lines = [head, ["---"] * len(head)]
    for kind, styles in evaluation.items():
        for style, counts in styles.items():
            shares = [share_text(counts[name], counts["num_queries"]) for name in FIGURES]
            lines.append([kind, f"`{style}`", *shares])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def share_text(num_hits: int, num_all: int) -> str:
    """A share with its interval, such as "0.980 (0.957 to 0.991)"."""
    low, high = wilson(num_hits, num_all)
    return f"{num_hits / num_all:.3f} ({low:.3f} to {high:.3f})"
