"""Rerank: order the retrieved images by accuracy and aesthetics, and derive preferences from that order.

Columns: those of `actors.cascade.Retrieval` (with `vectors` for the scorer) -> `RANKED`: the images of the
grid with both scores, their preferences, how many answers the judge failed to give, and why images could not
be read. Such images leave the candidates. The semantic score is the accuracy.

Three sources of the aesthetic score:
- `scorer`: a model on the stored embeddings.
- `lmm_score`: the judge rates each image, once for all queries that retrieve it.
- `lmm_pair`: the judge compares the images of a row in both orders; the score of an image is its strength
  beside the others, in log-odds.

The judge is also asked outright which image of a few pairs is the better answer (`jobs.label.calibration`).
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from PIL import Image

from actors.engine import make_engine
from actors.judge import Comparison, ImageCache, Judge
from actors.scorers import Scorer
from cluster.profile import LanguageModel
from cluster.tables import Store
from jobs.label.pairs import Grid, Preference, cut, order_rows, preferences, strengths, thin

_CELL = pa.list_(pa.int32())
UNREADABLE = pa.list_(pa.struct([("image_id", pa.string()), ("reason", pa.string())]))
RANKED = pa.schema(
    {
        "query": pa.string(),
        "rephrased": pa.string(),
        "style": pa.string(),
        "error": pa.string(),
        "image_ids": pa.list_(pa.string()),
        "semantic_scores": pa.list_(pa.float32()),
        "aesthetic_scores": pa.list_(pa.float32()),
        "pairs": pa.list_(
            pa.struct(
                [
                    ("winner", pa.string()),
                    ("loser", pa.string()),
                    ("aesthetic_gap", pa.float32()),
                    ("semantic_gap", pa.float32()),
                    ("overall", pa.float32()),
                    ("winner_cell", _CELL),
                    ("loser_cell", _CELL),
                    ("consistent", pa.bool_()),
                ]
            )
        ),
        "num_failed_answers": pa.int64(),
        "unreadable": UNREADABLE,
    }
)


@dataclass(frozen=True)
class RankingRule:
    """How images are ordered.

    source: what gives the aesthetic score: scorer, lmm_score or lmm_pair. semantic: "encoder" (the retrieval
    score) or "judge" (its accuracy rating for the original query).
    """

    source: str
    semantic: str
    grid: Grid

    @property
    def needs_judge(self) -> bool:
        """Whether the judge has to be loaded."""
        return self.source != "scorer" or self.semantic == "judge"


@dataclass
class Ranking:
    """One query's candidate images, best retrieved first; every list is indexed by position.

    semantic, aesthetic: float64 [N], higher is better. judged: comparisons of `lmm_pair`, by positions.
    overall: (winner, loser) -> share of the judge's two orders in which the winner is the better answer.
    failure: why an answer failed. unreadable: image_id -> why it left the candidates.
    """

    row: dict
    error: str
    image_ids: list[str]
    semantic: np.ndarray
    vectors: list | None
    aesthetic: np.ndarray
    judged: dict[tuple[int, int], tuple[float, bool]] = field(default_factory=dict)
    overall: dict[tuple[int, int], float] = field(default_factory=dict)
    num_failed: int = 0
    failure: str = ""
    unreadable: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, row: dict) -> "Ranking":
        """From a row of `Retrieve`."""
        ids, scores = row["image_ids"], np.array(row["retrieval_scores"], dtype=np.float64)
        error = row["rephrase_error"]
        if not error and len(ids) < 2:
            error = f"only {len(ids)} images were retrieved: two are needed to prefer one"
        return cls(row, error, ids, scores, row.get("vectors"), np.full(len(ids), np.nan))

    def take(self, positions: Sequence[int]) -> None:
        """Keep these images, in this order."""
        self.image_ids = [self.image_ids[position] for position in positions]
        self.vectors = [self.vectors[position] for position in positions] if self.vectors else None
        self.semantic, self.aesthetic = self.semantic[positions], self.aesthetic[positions]

    def drop_unreadable(self, faults: Mapping[str, str]) -> None:
        """Drop the images in `faults`: image_id -> why it cannot be read."""
        self.unreadable |= {image_id: faults[image_id] for image_id in self.image_ids if image_id in faults}
        self.take([position for position, i in enumerate(self.image_ids) if i not in faults])

    def count_failures(self, num_failed: int, reason: str) -> None:
        """Count the answers that the judge failed to give, and keep the first reason."""
        self.num_failed += num_failed
        if num_failed:
            self.failure = self.failure or reason

    def drop_unrated(self, scores: np.ndarray, reason: str = "") -> None:
        """Drop the images whose score is NaN: the judge gave no answer for them."""
        self.count_failures(int(np.isnan(scores).sum()), reason)
        self.take([int(position) for position in np.flatnonzero(~np.isnan(scores))])


class Rerank:
    """Ray Data actor, `batch_format="pyarrow"`: see the module. A row with an error gets no pairs.

    num_asked: number of pairs of a query about which the judge is asked outright.
    """

    def __init__(
        self,
        *,
        store: Store,
        rule: RankingRule,
        judge: LanguageModel,
        scorer: Scorer | None = None,
        num_asked: int = 0,
    ) -> None:
        self.rule = rule
        self.num_asked = num_asked
        self.scorer = scorer
        self.judge = Judge(make_engine(judge), judge.image_px) if rule.needs_judge else None
        self.images = ImageCache(store, judge.image_px)
        self.ratings: dict[str, float] = {}

    def __call__(self, batch: pa.Table) -> pa.Table:
        rankings = [Ranking.of(row) for row in batch.to_pylist()]
        usable = [ranking for ranking in rankings if not ranking.error]
        self._score_semantics(usable)
        self._score_aesthetics(usable, self._choose(usable))
        preferred = [self._prefer(ranking) for ranking in usable]
        self._ask_outright(usable, preferred)
        pairs = {id(ranking): own for ranking, own in zip(usable, preferred, strict=True)}
        rows = [ranked(ranking, pairs.get(id(ranking), [])) for ranking in rankings]
        return pa.Table.from_pylist(rows, RANKED)

    def _score_semantics(self, rankings: Sequence[Ranking]) -> None:
        """With semantic "judge", replace cosines by the judge's accuracy for the original query."""
        if self.rule.semantic == "encoder":
            return
        assert self.judge is not None
        images = self._load(_all_ids(rankings), rankings)
        queries = [ranking.row["query"] for ranking in rankings for _ in ranking.image_ids]
        ratings = self.judge.accuracy(queries, [images[image_id] for image_id in _all_ids(rankings)])
        for ranking, own in zip(rankings, _split(ratings, rankings), strict=True):
            ranking.semantic = own
            ranking.drop_unrated(own, self.judge.first_error)

    def _choose(self, rankings: Sequence[Ranking]) -> dict[str, Image.Image]:
        """Keep the images of each grid, and load those that the judge has to see.

        Where one cannot be read, the grid is chosen again from the others.
        """
        images: dict[str, Image.Image] = {}
        while True:
            chosen = [thin(ranking.semantic, self.rule.grid) for ranking in rankings]
            ids = [r.image_ids[place] for r, places in zip(rankings, chosen, strict=True) for place in places]
            new = [i for i in dict.fromkeys(ids) if i not in images and i not in self.ratings]
            if self.rule.source == "scorer" or not new:
                break
            images |= self._load(new, rankings)
        for ranking, places in zip(rankings, chosen, strict=True):
            ranking.take(places)
        return images

    def _load(self, image_ids: Sequence[str], rankings: Sequence[Ranking]) -> dict[str, Image.Image]:
        """The images that can be read, by image_id; the rankings lose the others."""
        loaded = dict(zip(image_ids, self.images.load(image_ids), strict=True))
        faults = {i: self.images.faults[i] for i, image in loaded.items() if image is None}
        for ranking in rankings:
            ranking.drop_unreadable(faults)
        return {image_id: image for image_id, image in loaded.items() if image is not None}

    def _score_aesthetics(self, rankings: Sequence[Ranking], images: Mapping[str, Image.Image]) -> None:
        """Fill in the aesthetic scores from the rule's source."""
        if self.rule.source == "scorer":
            assert self.scorer is not None
            for ranking in rankings:
                ranking.aesthetic = self.scorer.score(np.array(ranking.vectors, dtype=np.float32))
            return
        assert self.judge is not None
        (self._rate if self.rule.source == "lmm_score" else self._compare)(self.judge, rankings, images)

    def _rate(self, judge: Judge, rankings: Sequence[Ranking], images: Mapping[str, Image.Image]) -> None:
        """Rate `images`, which have no rating yet; an image's rating serves all queries."""
        ratings = judge.aesthetics(list(images.values()))
        self.ratings.update((i, float(r)) for i, r in zip(images, ratings, strict=True) if not np.isnan(r))
        for ranking in rankings:
            ranking.aesthetic = np.array([self.ratings.get(i, np.nan) for i in ranking.image_ids])
            ranking.drop_unrated(ranking.aesthetic, judge.first_error)

    def _compare(self, judge: Judge, rankings: Sequence[Ranking], images: Mapping[str, Image.Image]) -> None:
        """Compare every two images of a row; a score is the image's strength in its row."""
        columns = self.rule.grid.columns
        duels = [(r, a, b) for r in rankings for a, b in row_pairs(len(r.image_ids), columns)]
        result = judge.compare(
            "aesthetics",
            [ranking.row["query"] for ranking, _, _ in duels],
            [images[ranking.image_ids[a]] for ranking, a, _ in duels],
            [images[ranking.image_ids[b]] for ranking, _, b in duels],
        )
        outcomes = zip(duels, result.p.tolist(), result.consistent.tolist(), strict=True)
        for (ranking, a, b), p, consistent in outcomes:
            ranking.judged[a, b], ranking.judged[b, a] = (p, consistent), (1.0 - p, consistent)
            ranking.count_failures(int(np.isnan(p)), judge.first_error)
        for ranking in rankings:
            ranking.aesthetic = strengths(len(ranking.image_ids), ranking.judged)

    def _prefer(self, ranking: Ranking) -> list[Preference]:
        rows = cut(len(ranking.image_ids), self.rule.grid.columns)
        ordered = order_rows(rows, ranking.aesthetic)
        return preferences(ordered, ranking.semantic, ranking.aesthetic, judged=ranking.judged)

    def _ask_outright(self, rankings: Sequence[Ranking], preferred: Sequence[Sequence[Preference]]) -> None:
        """Ask the judge which image of a few pairs of each query is the better answer, in both orders."""
        if self.judge is None or not self.num_asked:
            return
        asked = [
            (ranking, (pair.winner, pair.loser))
            for ranking, pairs in zip(rankings, preferred, strict=True)
            for pair in random.Random(ranking.row["query"]).sample(pairs, min(self.num_asked, len(pairs)))
        ]
        winners, losers = (
            self.images.load([ranking.image_ids[pair[side]] for ranking, pair in asked]) for side in (0, 1)
        )
        shown = [
            (ranking, pair, winner, loser)
            for (ranking, pair), winner, loser in zip(asked, winners, losers, strict=True)
            if winner and loser
        ]
        result = self.judge.compare(
            "overall",
            [ranking.row["query"] for ranking, _, _, _ in shown],
            [winner for _, _, winner, _ in shown],
            [loser for _, _, _, loser in shown],
        )
        for (ranking, pair, _, _), share in zip(shown, order_shares(result).tolist(), strict=True):
            if not np.isnan(share):
                ranking.overall[pair] = share


def order_shares(result: Comparison) -> np.ndarray:
    """Share of the two orders in which A wins, float64 [N] in {0, 0.5, 1}; an even order counts half."""
    return 0.5 + (np.sign(result.p_ab - 0.5) + np.sign(result.p_ba - 0.5)) / 4


def row_pairs(num_images: int, columns: int) -> list[tuple[int, int]]:
    """Every pair of positions within each row, once."""
    return [pair for row in cut(num_images, columns) for pair in itertools.combinations(row, 2)]


def ranked(ranking: Ranking, pairs: Sequence[Preference]) -> dict:
    """A row of `RANKED`. A query that kept too few images for any pair carries an error."""
    error = ranking.error
    if not error and not pairs:
        error = no_pair(ranking)
    named = [
        {
            "winner": ranking.image_ids[pair.winner],
            "loser": ranking.image_ids[pair.loser],
            "aesthetic_gap": pair.aesthetic_gap,
            "semantic_gap": pair.semantic_gap,
            "overall": ranking.overall.get((pair.winner, pair.loser)),
            "winner_cell": list(pair.winner_cell),
            "loser_cell": list(pair.loser_cell),
            "consistent": pair.consistent,
        }
        for pair in pairs
    ]
    return {
        "query": ranking.row["query"],
        "rephrased": ranking.row["rephrased"],
        "style": ranking.row["style"],
        "error": error,
        "image_ids": ranking.image_ids,
        "semantic_scores": ranking.semantic.tolist(),
        "aesthetic_scores": ranking.aesthetic.tolist(),
        "pairs": named,
        "num_failed_answers": ranking.num_failed,
        "unreadable": [{"image_id": i, "reason": reason} for i, reason in ranking.unreadable.items()],
    }


def no_pair(ranking: Ranking) -> str:
    """Why no pair of a query's images is left."""
    parts = []
    if ranking.unreadable:
        first = next(iter(ranking.unreadable.values()))
        parts.append(f"{len(ranking.unreadable)} images cannot be read, such as: {first}")
    if ranking.num_failed or not parts:
        reason = f", the first time because {ranking.failure}" if ranking.failure else ""
        parts.append(f"the judge gave no answer {ranking.num_failed} times{reason}")
    return f"no pair is left: {'; '.join(parts)}"


def _all_ids(rankings: Sequence[Ranking]) -> list[str]:
    return [image_id for ranking in rankings for image_id in ranking.image_ids]


def _split(values: np.ndarray, rankings: Sequence[Ranking]) -> list[np.ndarray]:
    ends = np.cumsum([len(ranking.image_ids) for ranking in rankings], dtype=int)
    return np.split(values, ends)[:-1]
