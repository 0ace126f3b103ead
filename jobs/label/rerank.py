"""Rerank: semantic and aesthetic models order the retrieved images; the partial order gives preferences.

Columns: `query`, `rephrased`, `style`, `error`, `image_ids`, `retrieval_scores` (and `vectors` for the
scorer) -> `RANKED`: the images of the grid with both scores, their preferences, and how many answers the
judge failed to give.

Three sources of the aesthetic order:
- `scorer`: a model on the stored embeddings.
- `lmm_score`: the judge rates each image; it is asked once per image, however many queries retrieve it.
- `lmm_pair`: the judge compares the images of a row in both orders; an image's score is its mean probability
  to win.
"""

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from PIL import Image

from actors.engine import make_engine
from actors.images import STORED
from actors.judge import Judge, stored_images
from actors.scorers import Scorer
from cluster.profile import LanguageModel
from cluster.sql import in_list
from cluster.tables import Store
from jobs.label.pairs import (
    Grid,
    Preference,
    cut,
    order_rows,
    preferences,
    spread,
    thin,
)

# A difference of half a point between two ratings (1 to 5) is one logit: the judge's own noise, roughly.
RATING_UNIT = 0.5
# A difference of a quarter in the mean probability to win inside a row is one logit.
WIN_SHARE_UNIT = 0.25
# Pixels of images kept ready between calls, 150 MB: at 112 px 4,000 images.
MAX_CACHED_PIXELS = 50_000_000
IDS_PER_READ = 500

_CELL = pa.list_(pa.int32())
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
                {
                    "winner": pa.string(),
                    "loser": pa.string(),
                    "p_winner": pa.float32(),
                    "winner_cell": _CELL,
                    "loser_cell": _CELL,
                    "consistent": pa.bool_(),
                }
            )
        ),
        "num_failed_answers": pa.int64(),
    }
)


@dataclass(frozen=True)
class Order:
    """How images are ordered. source: scorer, lmm_score or lmm_pair. semantic: "encoder" (the retrieval's
    own score) or "judge" (the judge's accuracy for the original query).
    """

    source: str
    semantic: str
    grid: Grid

    @property
    def needs_judge(self) -> bool:
        """Whether a judge has to be loaded."""
        return self.source != "scorer" or self.semantic == "judge"


@dataclass
class Candidates:
    """One query's images, best retrieved first; every list is indexed by position.

    semantic, aesthetic: float64 [N], higher is better. judged: comparisons of `lmm_pair`, by positions.
    """

    row: dict
    image_ids: list[str]
    semantic: np.ndarray
    vectors: list | None
    aesthetic: np.ndarray
    judged: dict[tuple[int, int], tuple[float, bool]] = field(default_factory=dict)
    num_failed: int = 0

    @classmethod
    def of(cls, row: dict) -> "Candidates":
        """From a row as the retrieval left it."""
        scores = np.array(row["retrieval_scores"], dtype=np.float64)
        return cls(row, row["image_ids"], scores, row.get("vectors"), np.full(len(scores), np.nan))

    def take(self, positions: Sequence[int]) -> None:
        """Keep these images, in this order."""
        self.image_ids = [self.image_ids[position] for position in positions]
        self.vectors = [self.vectors[position] for position in positions] if self.vectors else None
        self.semantic, self.aesthetic = self.semantic[positions], self.aesthetic[positions]

    def drop_unanswered(self, scores: np.ndarray) -> None:
        """Drop the images whose score is NaN: no answer is no label."""
        self.num_failed += int(np.isnan(scores).sum())
        self.take([int(position) for position in np.flatnonzero(~np.isnan(scores))])


class Rerank:
    """Ray Data actor, `batch_format="pyarrow"`: see the module. Rows that carry an error pass without
    pairs.
    """

    def __init__(self, *, store: Store, order: Order, judge: LanguageModel, scorer: Scorer | None = None):
        self.order = order
        self.scorer = scorer
        self.judge = Judge(make_engine(judge), judge.image_px) if order.needs_judge else None
        self.pictures = Pictures(store, judge.image_px)
        self.ratings: dict[str, float] = {}

    def __call__(self, batch: pa.Table) -> pa.Table:
        candidates = [Candidates.of(row) for row in batch.to_pylist()]
        alive = [c for c in candidates if not c.row["error"]]
        semantic_units = self._score_semantics(alive)
        for c in alive:
            c.take(thin(c.semantic, self.order.grid))
        aesthetic_units = self._score_aesthetics(alive)
        pairs = {
            id(c): self._prefer(c, semantic_unit, aesthetic_unit)
            for c, semantic_unit, aesthetic_unit in zip(alive, semantic_units, aesthetic_units, strict=True)
        }
        return pa.Table.from_pylist([ranked(c, pairs.get(id(c), [])) for c in candidates], RANKED)

    def _score_semantics(self, candidates: Sequence[Candidates]) -> list[float]:
        """Put the judge's accuracy for the original query in the place of the cosine where the order wants
        it; returns the unit of each query's scores.
        """
        if self.order.semantic == "encoder":
            return [spread(c.semantic) for c in candidates]
        asked = [(c.row["query"], image) for c in candidates for image in c.image_ids]
        images = self.pictures.load([image for _, image in asked])
        ratings = self.judge.accuracy([query for query, _ in asked], [images[image] for _, image in asked])
        for c, own in zip(candidates, _split(ratings, candidates), strict=True):
            c.semantic = own
            c.drop_unanswered(own)
        return [RATING_UNIT] * len(candidates)

    def _score_aesthetics(self, candidates: Sequence[Candidates]) -> list[float]:
        """Fill in the aesthetic scores by the order's source; returns the unit of each query's."""
        if self.order.source == "scorer":
            for c in candidates:
                c.aesthetic = self.scorer.score(np.array(c.vectors, dtype=np.float32))
            return [spread(c.aesthetic) for c in candidates]
        if self.order.source == "lmm_score":
            self._rate(candidates)
            return [RATING_UNIT] * len(candidates)
        self._compare(candidates)
        return [WIN_SHARE_UNIT] * len(candidates)

    def _rate(self, candidates: Sequence[Candidates]) -> None:
        wanted = dict.fromkeys(
            image for c in candidates for image in c.image_ids if image not in self.ratings
        )
        images = self.pictures.load(wanted)
        ratings = self.judge.aesthetics([images[image] for image in wanted])
        self.ratings.update((i, float(r)) for i, r in zip(wanted, ratings, strict=True) if not np.isnan(r))
        for c in candidates:
            c.aesthetic = np.array([self.ratings.get(image, np.nan) for image in c.image_ids])
            c.drop_unanswered(c.aesthetic)

    def _compare(self, candidates: Sequence[Candidates]) -> None:
        """Every two images of a row against each other; a score is the mean probability to win."""
        duels = [
            (c, a, b) for c in candidates for a, b in row_pairs(len(c.image_ids), self.order.grid.columns)
        ]
        images = self.pictures.load({image for c in candidates for image in c.image_ids})
        result = self.judge.compare(
            "aesthetics",
            [c.row["query"] for c, _, _ in duels],
            [images[c.image_ids[a]] for c, a, _ in duels],
            [images[c.image_ids[b]] for c, _, b in duels],
        )
        for (c, a, b), p, consistent in zip(
            duels, result.p.tolist(), result.consistent.tolist(), strict=True
        ):
            c.judged[a, b], c.judged[b, a] = (p, consistent), (1.0 - p, consistent)
            c.num_failed += int(np.isnan(p))
        for c in candidates:
            c.aesthetic = win_shares(len(c.image_ids), c.judged)

    def _prefer(self, c: Candidates, semantic_unit: float, aesthetic_unit: float) -> list[Preference]:
        rows = order_rows(cut(len(c.image_ids), self.order.grid.columns), c.aesthetic)
        return preferences(
            rows,
            c.semantic,
            c.aesthetic,
            semantic_unit=semantic_unit,
            aesthetic_unit=aesthetic_unit,
            judged=c.judged,
        )


class Pictures:
    """The stored images as the judge sees them, the latest used kept ready."""

    def __init__(self, store: Store, image_px: int | None):
        self.store = store
        self.image_px = image_px
        self.ready: OrderedDict[str, Image.Image] = OrderedDict()
        self.num_pixels = 0

    def load(self, image_ids: Iterable[str]) -> dict[str, Image.Image]:
        """The images of these ids. Raises KeyError for an id that the table `images` does not hold."""
        wanted = list(dict.fromkeys(image_ids))
        missing = [image for image in wanted if image not in self.ready]
        for start in range(0, len(missing), IDS_PER_READ):
            where = in_list("image_id", missing[start : start + IDS_PER_READ])
            rows = self.store.read("images", STORED, where).to_pylist()
            read = stored_images(rows, self.image_px)
            self.ready.update(read)
            self.num_pixels += sum(image.width * image.height for image in read.values())
        images = {image: self.ready[image] for image in wanted}
        for image in wanted:
            self.ready.move_to_end(image)
        while self.num_pixels > MAX_CACHED_PIXELS:
            _, oldest = self.ready.popitem(last=False)
            self.num_pixels -= oldest.width * oldest.height
        return images


def row_pairs(num_images: int, columns: int) -> list[tuple[int, int]]:
    """Every two positions of each row, once."""
    return [pair for row in cut(num_images, columns) for pair in itertools.combinations(row, 2)]


def win_shares(num_images: int, judged: Mapping[tuple[int, int], tuple[float, bool]]) -> np.ndarray:
    """Mean probability of each image to win its comparisons, float64 [N] in [0, 1]; one half where it had
    none.
    """
    won: list[list[float]] = [[] for _ in range(num_images)]
    for (image, _), (p, _) in judged.items():
        if not np.isnan(p):
            won[image].append(p)
    return np.array([np.mean(shares) if shares else 0.5 for shares in won])


def ranked(c: Candidates, pairs: Sequence[Preference]) -> dict:
    """A row of `RANKED`. A query that kept too few images for any pair carries an error."""
    error = c.row["error"]
    if not error and not pairs:
        error = f"no pair is left: the judge gave no answer {c.num_failed} times"
    named = [
        {
            "winner": c.image_ids[pair.winner],
            "loser": c.image_ids[pair.loser],
            "p_winner": pair.p_winner,
            "winner_cell": list(pair.winner_cell),
            "loser_cell": list(pair.loser_cell),
            "consistent": pair.consistent,
        }
        for pair in pairs
    ]
    return {
        "query": c.row["query"],
        "rephrased": c.row["rephrased"],
        "style": c.row["style"],
        "error": error,
        "image_ids": c.image_ids,
        "semantic_scores": c.semantic.tolist(),
        "aesthetic_scores": c.aesthetic.tolist(),
        "pairs": named,
        "num_failed_answers": c.num_failed,
    }


def _split(values: np.ndarray, candidates: Sequence[Candidates]) -> list[np.ndarray]:
    ends = np.cumsum([len(c.image_ids) for c in candidates])[:-1]
    return np.split(values, ends)
