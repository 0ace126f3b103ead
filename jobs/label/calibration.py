"""Calibration: how likely the winner of a pair is the better answer, given the gaps between the scores.

A preference stores two gaps, winner minus loser, of the aesthetic and of the semantic scores. Each is in the
units of its source: points of a rating, log-odds of a comparison, cosines. Platt scaling with two features
turns them into a probability, at least one half (Platt 1999, "Probabilistic outputs for support vector
machines"):

    p_winner = sigmoid(aesthetic weight * aesthetic gap + semantic weight * semantic gap)

A cell of the partial order dominates by its position, but the scores may disagree: the winner may be uglier
than an image of another row, or less accurate than one of its own row. Where the sum contradicts the
preference, the pair becomes a tie.

The weights are fitted on pairs of which the better image is known. Those come from the first of these sources
that has `MIN_PAIRS`: the votes of `--votes`, people's direct choices in `feedback`, and the judge's own order
consistency. For the last, the judge is asked outright which image of a few pairs is the better answer, in
both orders; a contradiction counts half. It shows how far the scores can be trusted to repeat the judge's own
verdict, not whether the judge is right.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from cluster.sql import literal
from cluster.tables import SCHEMAS, Store, retry_on_commit_conflict

MIN_PAIRS = 40  # twenty for each of the two weights
NUM_FOLDS = 5
NUM_BINS = 5  # of the probability, from one half to 1
# Without anything to calibrate on: logits of a gap as large as the run's root mean square gap.
UNCALIBRATED_LOGITS = 1.0
UNCHANGED = 1e-5  # differences of p_winner that are only rounding


@dataclass(frozen=True)
class Evidence:
    """N pairs of which the better image is known.

    source: where that is known from. gaps: float [N, 2], aesthetic and semantic, first image minus second.
    share: float [N] in [0, 1], how often the first was preferred. weight: float [N] > 0. queries: str [N].
    """

    source: str
    gaps: np.ndarray
    share: np.ndarray
    weight: np.ndarray
    queries: np.ndarray

    @property
    def num_pairs(self) -> int:
        """N."""
        return len(self.share)


@dataclass(frozen=True)
class Calibration:
    """What `p_winner` is computed with, and how well it fits.

    source: of the evidence, "none" without any. weights: logits per unit of the aesthetic and of the semantic
    score. num_pairs: of the evidence. ece: expected calibration error, measured on queries that were left out
    of the fit. ece_before: the same with the weights of no calibration. bins: of the reliability diagram.
    """

    source: str
    weights: tuple[float, float]
    num_pairs: int = 0
    ece: float | None = None
    ece_before: float | None = None
    bins: tuple[dict[str, float], ...] = ()

    def p_winner(self, gaps: np.ndarray) -> np.ndarray:
        """float [N, 2] -> the probability that the winner is the better answer, float [N] in [0.5, 1]."""
        return np.maximum(0.5, expit(gaps @ np.array(self.weights)))

    def report(self) -> dict[str, Any]:
        """The calibration for the report of the verb."""
        aesthetic, semantic = self.weights
        figures = {
            "source": self.source,
            "num_pairs": self.num_pairs,
            "aesthetic_weight": aesthetic,
            "semantic_weight": semantic,
        }
        if self.source == "none":
            return {**figures, "remedy": self.remedy()}
        return {**figures, "ece": self.ece, "ece_before": self.ece_before, "bins": list(self.bins)}

    def remedy(self) -> str:
        """What would provide a calibration."""
        return (
            f"give --votes with at least {MIN_PAIRS} pairs, or label more queries with a judge, which is "
            "then asked outright about pairs"
        )

    def sentence(self) -> str:
        """The calibration in one sentence."""
        if self.source == "none":
            known = f"only {self.num_pairs} pairs have a known better image"
            return f"p_winner is not calibrated, because {known}: {self.remedy()}"
        on = f"p_winner is calibrated on {self.num_pairs} pairs ({self.source})"
        if not any(self.weights):
            return f"{on}, which the scores do not predict: every preference is a near tie"
        return f"{on}: expected calibration error {self.ece:.3f}, {self.ece_before:.3f} before"


def calibrate(votes: Evidence, consistency: Evidence, gaps: np.ndarray) -> Calibration:
    """The calibration of a run whose preferences have these gaps, float [P, 2].

    It is fitted on the votes if there are `MIN_PAIRS`, or else on the judge's order consistency. If both have
    too few pairs, it is that of no calibration.
    """
    evidence = votes if votes.num_pairs >= MIN_PAIRS else consistency
    before = uncalibrated_weights(gaps)
    if evidence.num_pairs < MIN_PAIRS:
        return Calibration("none", before, evidence.num_pairs)
    ece_before, _ = reliability(expit(evidence.gaps @ np.array(before)), evidence.share, evidence.weight)
    ece, bins = reliability(left_out_probabilities(evidence), evidence.share, evidence.weight)
    weights = fit_weights(evidence.gaps, evidence.share, evidence.weight)
    return Calibration(evidence.source, weights, evidence.num_pairs, ece, ece_before, bins)


def uncalibrated_weights(gaps: np.ndarray) -> tuple[float, float]:
    """Weights that give each root mean square gap of float [P, 2] `UNCALIBRATED_LOGITS`."""
    aesthetic, semantic = UNCALIBRATED_LOGITS / _units(gaps)
    return float(aesthetic), float(semantic)


def fit_weights(gaps: np.ndarray, share: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Aesthetic and semantic weight of most likelihood, both at least 0; arguments as in `Evidence`.

    A weight below 0 would contradict the partial order. The shares are drawn towards one half as Platt does,
    so that the weights stay finite where the gaps decide all pairs. There is no intercept: swapping the two
    images must give the opposite probability.
    """
    units, num_pairs = _units(gaps), len(share)
    scaled, target = gaps / units, (share * num_pairs + 1) / (num_pairs + 2)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = scaled @ weights
        value = weight @ (np.logaddexp(0, logits) - target * logits)
        return float(value), scaled.T @ (weight * (expit(logits) - target))

    aesthetic, semantic = minimize(loss, np.ones(2), jac=True, bounds=[(0, None)] * 2).x / units
    return float(aesthetic), float(semantic)


def _units(gaps: np.ndarray) -> np.ndarray:
    """Root mean square of both gaps, float [2]; infinite, for a weight of 0, where all gaps are 0."""
    squares = np.mean(np.square(gaps), axis=0) if len(gaps) else np.zeros(2)
    return np.where(squares > 0, np.sqrt(squares), np.inf)


def left_out_probabilities(evidence: Evidence) -> np.ndarray:
    """The probability of each pair's first image, float [N], by weights fitted on other queries."""
    from sklearn.model_selection import GroupKFold  # slow to import

    groups = np.unique(evidence.queries, return_inverse=True)[1]
    if groups.max() == 0:  # one query: leave out its pairs
        groups = np.arange(len(groups))
    p = np.empty(len(groups))
    for fitted, left_out in GroupKFold(min(NUM_FOLDS, groups.max() + 1)).split(p, groups=groups):
        weights = fit_weights(evidence.gaps[fitted], evidence.share[fitted], evidence.weight[fitted])
        p[left_out] = expit(evidence.gaps[left_out] @ np.array(weights))
    return p


def reliability(
    p: np.ndarray, share: np.ndarray, weight: np.ndarray
) -> tuple[float, tuple[dict[str, float], ...]]:
    """Expected calibration error, and the bins of the reliability diagram (Guo et al., arXiv 1706.04599).

    p: probability of the first image, float [N]; share and weight as in `Evidence`. Every pair counts from
    the side of the more probable image. A bin has the mean probability `p`, the mean `share` and `num_pairs`;
    empty bins are left out. The error is the mean distance of the two, weighted.
    """
    confidence, agreed = np.maximum(p, 1 - p), np.where(p >= 0.5, share, 1 - share)
    bin_of = np.minimum((2 * (confidence - 0.5) * NUM_BINS).astype(int), NUM_BINS - 1)
    bins, error = [], 0.0
    for number in np.unique(bin_of):
        chosen = bin_of == number
        mean_p, mean_share = (np.average(x[chosen], weights=weight[chosen]) for x in (confidence, agreed))
        error += abs(mean_p - mean_share) * weight[chosen].sum() / weight.sum()
        bins.append({"p": float(mean_p), "share": float(mean_share), "num_pairs": int(chosen.sum())})
    return float(error), tuple(bins)


def read_run(store: Store, run_id: str) -> tuple[np.ndarray, np.ndarray, Evidence]:
    """The gaps of a run's preferences, float [P, 2], their p_winner, float [P] (NaN for null), and the
    evidence of the judge's order consistency. Empty before the run.
    """
    columns = ("query", "p_winner", "aesthetic_gap", "semantic_gap", "overall", "winner", "loser")
    rows = SCHEMAS["preferences"].empty_table().select(columns)
    if store.exists("preferences"):
        rows = store.read("preferences", columns, f"run_id = {literal(run_id)}")
    # Sorted, so that the result does not depend on the order in which queries were finished.
    rows = rows.sort_by([(name, "ascending") for name in ("query", "winner", "loser")])
    queries = rows["query"].to_numpy()
    p_winner, aesthetic, semantic, overall = (
        rows[name].to_numpy().astype(np.float64) for name in columns[1:5]
    )
    gaps, asked = np.stack([aesthetic, semantic], axis=1), ~np.isnan(overall)
    share = overall[asked]
    evidence = Evidence("order consistency", gaps[asked], share, np.ones(len(share)), queries[asked])
    return gaps, p_winner, evidence


def calibrate_run(store: Store, run_id: str, votes: Evidence) -> Calibration:
    """Calibrate a run and write `p_winner`; nothing is written where it is right already."""
    gaps, p_winner, consistency = read_run(store, run_id)
    calibration = calibrate(votes, consistency, gaps)
    if not np.allclose(p_winner, calibration.p_winner(gaps), rtol=0, atol=UNCHANGED):
        _write(store, run_id, calibration)
    return calibration


@retry_on_commit_conflict
def _write(store: Store, run_id: str, calibration: Calibration) -> None:
    aesthetic, semantic = calibration.weights
    odds = f"exp(-({aesthetic!r} * aesthetic_gap + {semantic!r} * semantic_gap))"
    p_winner = {"p_winner": f"greatest(0.5, 1.0 / (1.0 + {odds}))"}
    store.open("preferences").update(where=f"run_id = {literal(run_id)}", values_sql=p_winner)
