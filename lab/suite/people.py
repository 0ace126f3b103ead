"""Simulated people compare two lists of results: the studio's raters take the place of a panel."""

from collections.abc import Mapping, Sequence

import numpy as np

from jobs.evaluate.figures import winrate
from jobs.evaluate.figures.winrate import TIE
from jobs.evaluate.output_files import EvaluationTables
from lab.studio.latents import Latents, is_accurate
from lab.studio.raters import Rater, sample_raters, votes

NUM_RATERS = 7
OPPONENTS = ("baseline", "suffix")  # people compare a challenger's results with theirs


def outcomes(
    latents: Mapping[str, Latents],
    queries: Sequence[str],
    lists_a: Sequence[Sequence[str]],
    lists_b: Sequence[Sequence[str]],
    *,
    seed: int,
) -> np.ndarray:
    """WIN, TIE or LOSS of list A by the majority of `NUM_RATERS` raters, int [Q].

    A rater's score of a list is the mean over its images of accurate x the beauty that this rater sees, with
    noise. Lists of the same images in any order are a tie, and so is an empty list.
    """
    rng = np.random.default_rng((seed, len(queries)))
    raters = sample_raters(rng, NUM_RATERS)
    found = np.full(len(queries), TIE)
    for index, (query, a, b) in enumerate(zip(queries, lists_a, lists_b, strict=True)):
        if a and b and sorted(a) != sorted(b):
            groups = ([latents[i] for i in a], [latents[i] for i in b])
            for_a, for_b = votes(lambda rater, x, query=query: _gated(rater, x, query), raters, groups, rng)
            found[index] = np.sign(for_a - for_b)
    return found


def _gated(rater: Rater, latents: Latents, query: str) -> float:
    return rater.aesthetics(latents) if is_accurate(query, latents) else 0.0


def rows_of(found: EvaluationTables, challenger: str) -> np.ndarray:
    """Indices of a challenger's rows, int [Q]."""
    return np.flatnonzero(np.array(found.rows["challenger"].to_pylist()) == challenger)


def outcomes_in(
    found: EvaluationTables,
    challenger: str,
    latents: Mapping[str, Latents],
    *,
    seed: int,
    opponent: str = "baseline",
) -> np.ndarray:
    """`outcomes` of a challenger's results against another system's, int [Q].

    The queries are in the order of the challenger's rows.
    """
    queries = found.rows.take(rows_of(found, challenger)).to_pydict()["query"]
    shown: dict[tuple[str, str], list[str]] = {}
    for row in found.answers.to_pylist():
        shown.setdefault((row["system"], row["query"]), []).append(row["image_id"])
    lists = ([shown.get((system, query), []) for query in queries] for system in (challenger, opponent))
    return outcomes(latents, queries, *lists, seed=seed)


def win_rates(
    found: EvaluationTables, latents: Mapping[str, Latents], *, num_resamples: int, seed: int
) -> dict[str, dict]:
    """ "aligned_vs_<opponent>" -> the win rate of the aligned encoder by people, and by the judge where it
    compared them; "judge_agrees_with_people" is over the queries that both decided.
    """
    sampling = {"num_resamples": num_resamples, "seed": seed}
    shown = found.answers["system"].unique().to_pylist()
    people = {
        opponent: outcomes_in(found, "aligned", latents, seed=seed, opponent=opponent)
        for opponent in OPPONENTS
        if opponent in shown
    }
    rates: dict[str, dict] = {
        f"aligned_vs_{name}": {"people": winrate.summary(own, **sampling)} for name, own in people.items()
    }
    judge = winrate.outcomes(found.margins("ranker")[rows_of(found, "aligned")])
    decided = (people["baseline"] != TIE) & (judge != TIE)
    agrees = (people["baseline"] == judge)[decided]
    rates["aligned_vs_baseline"] |= {
        "judge": winrate.summary(judge, **sampling),
        "judge_agrees_with_people": float(agrees.mean()) if decided.any() else None,
    }
    return rates
