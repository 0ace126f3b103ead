"""Measures a mini rephraser as it is served: through vLLM, with the prompts and grammars of production.

For every kind of query that training never asked (`rephraser_queries.KINDS`) and every style that asks a
model: how many answers the strict grammar had to be asked for, how many came never, and what the composed
texts keep and add (`rephraser_fit.check`). Counts, so that an interval can be given with each share.
"""

from collections.abc import Sequence, Set
from pathlib import Path

from actors.engine import Engine, Reply, Request, make_engine
from actors.rephraser import MODEL_STYLES, rephrase
from cluster.profile import load_profile
from lab.pretrain.rephraser.fit import check
from lab.pretrain.rephraser.queries import KINDS, Asked, unseen

# What is counted of an answer, and the head of its column in the card.
FIGURES = {
    "parses_at_once": "parses at once",
    "parses": "parses, strict grammar included",
    "keeps_subject": "keeps the subject",
    "fits": "adds two or more that fit, none that does not",
    "nothing_else": "says nothing else",
}
Counts = dict[str, int]
Z_95 = 1.959964


class Counted:
    """An engine that counts what it is asked."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self.num_requests = 0

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """The engine's replies."""
        self.num_requests += len(requests)
        return self.engine.generate(requests)


def measure(
    folder: str | Path, *, num_queries: int, seed: int, trained: Set[str]
) -> dict[str, dict[str, Counts]]:
    """Counts of `num_queries` seeded queries a kind, none in `trained`: {kind: {style: counts}}.

    The checkpoint in `folder` is hosted as the `mini` profile hosts its rephraser. Raises UserError when
    the folder holds none, ValueError when a kind has too few queries.
    """
    asked = {kind: unseen(kind, num_queries, seed, trained) for kind in KINDS}
    settings = load_profile("mini").rephraser.model_copy(update={"model": str(folder)})
    engine = make_engine(settings)
    return {
        kind: {style: counts(engine, queries, style) for style in MODEL_STYLES}
        for kind, queries in asked.items()
    }


def counts(engine: Engine, queries: Sequence[Asked], style: str) -> Counts:
    """How many answers have each of FIGURES, and `num_queries` that were asked for."""
    counted = Counted(engine)
    results = rephrase(counted, [query.text for query in queries], style)
    checked = [check(query, text) for query, (text, _) in zip(queries, results, strict=True)]
    answered = [text != "" for text, _ in results]
    return {
        "num_queries": len(queries),
        "parses_at_once": 2 * len(queries) - counted.num_requests,
        "parses": sum(answered),
        "keeps_subject": sum(text.keeps_subject for text in checked),
        "fits": sum(text.fits for text in checked),
        "nothing_else": sum(here and not text.foreign for here, text in zip(answered, checked, strict=True)),
    }


def wilson(num_hits: int, num_all: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; it is never empty, not even at 0 or 1."""
    share, shrink = num_hits / num_all, 1 + Z_95**2 / num_all
    middle = (share + Z_95**2 / (2 * num_all)) / shrink
    half = Z_95 / shrink * (share * (1 - share) / num_all + Z_95**2 / (4 * num_all**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def table(evaluation: dict[str, dict[str, Counts]]) -> str:
    """The card's table: one line for each kind and style, shares with their intervals."""
    head = ["queries", "style", *FIGURES.values()]
    lines = [head, ["---"] * len(head)]
    for kind, styles in evaluation.items():
        for style, row in styles.items():
            shares = [share(row[name], row["num_queries"]) for name in FIGURES]
            lines.append([kind, f"`{style}`", *shares])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def share(num_hits: int, num_all: int) -> str:
    low, high = wilson(num_hits, num_all)
    return f"{num_hits / num_all:.3f} ({low:.3f} to {high:.3f})"
