"""What one step of alignment sees: which queries and caption pairs, and how their tensors lie together.

Pure functions over Arrow tables and numpy arrays: no Ray, no model. A step is made of equal batches, and a
batch is what one forward pass holds. Batches are drawn without knowing how many workers there are, so two
workers with a batch each make the same step as one worker that adds up the gradients of two.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.schemas import HUMAN, near_ties

QUERIES, CAPTIONS = 0, 1  # streams of the seeded generator


@dataclass(frozen=True)
class Corpus:
    """What one alignment learns from. Arrow memory: Ray's processes share it without copying.

    `queries` has a row per query: `query`, and for its pairs, lists of equal length, `winner` and `loser`
    (int32 rows of `image_ids`), `p_winner` (float32, the probability that the winner is better), `weight`
    (float32 > 0), `winner_reference` and `loser_reference` (float32 scores of the reference, divided by tau).
    `captions` has a row per caption pair: `image` (int32 row of `image_ids`) and `caption`; `guard`, of the
    same columns, has the pairs that are held out. `image_ids` are the distinct images of all three.
    """

    queries: pa.Table
    captions: pa.Table
    guard: pa.Table
    image_ids: pa.Array


@dataclass(frozen=True)
class Schedule:
    """Which queries and caption pairs are in which batch of which epoch, the same for any number of workers.

    Every epoch shuffles anew from (seed, epoch). The last step is filled up from the epoch's first queries,
    so that every step is whole.
    """

    num_queries: int
    num_captions: int
    queries_per_batch: int
    caption_batch_size: int  # 0 = no caption pairs
    batches_per_step: int  # over all workers together
    seed: int

    @property
    def num_steps(self) -> int:
        """Optimiser steps of an epoch."""
        return -(-self.num_queries // (self.queries_per_batch * self.batches_per_step))

    @property
    def num_batches(self) -> int:
        """Batches of an epoch, those of the first step first."""
        return self.num_steps * self.batches_per_step

    def queries(self, epoch: int) -> np.ndarray:
        """Rows of `Corpus.queries`, int [num_batches, queries_per_batch]."""
        return self._draw(QUERIES, epoch, self.num_queries, self.queries_per_batch)

    def captions(self, epoch: int) -> np.ndarray:
        """Rows of `Corpus.captions`, int [num_batches, caption_batch_size]."""
        return self._draw(CAPTIONS, epoch, self.num_captions, self.caption_batch_size)

    def _draw(self, stream: int, epoch: int, num_rows: int, batch_size: int) -> np.ndarray:
        order = np.random.default_rng([self.seed, stream, epoch]).permutation(num_rows)
        return np.resize(order, (self.num_batches, batch_size))


def weigh_pairs(
    pairs: pa.Table, *, near_tie_weight: float, inconsistent_weight: float, human_weight: float
) -> pa.Table:
    """Preference rows with `p_winner`, `consistent` and `source` -> those that weigh anything, with `weight`.

    `weight` (float32, > 0) is 1, times `near_tie_weight` for a near tie, times `inconsistent_weight` where
    the judge, asked in both orders, contradicted itself, times `human_weight` where a person chose.
    """
    near = near_ties(pairs["p_winner"].to_numpy())
    consistent = pairs["consistent"].to_numpy()
    human = pc.equal(pairs["source"], HUMAN).to_numpy()
    weight = np.where(near, near_tie_weight, 1.0) * np.where(consistent, 1.0, inconsistent_weight)
    weight *= np.where(human, human_weight, 1.0)
    return pairs.append_column("weight", pa.array(weight.astype(np.float32))).filter(pa.array(weight > 0))


def group_pairs(pairs: pa.Table, *, max_pairs_per_query: int, seed: int) -> pa.Table:
    """Rows of `query`, `winner`, `loser`, `p_winner` and `weight` -> a row per query with lists of its pairs.

    The order of the rows given does not matter. A query with more than `max_pairs_per_query` pairs keeps a
    seeded sample of them.
    """
    # Two people, or a person and a judge, may have compared the same images: the last two tell them apart.
    order = ("query", "winner", "loser", "p_winner", "weight")
    pairs = pairs.sort_by([(name, "ascending") for name in order])
    kept = _sample_per_query(pairs["query"], max_pairs_per_query, seed)
    lists = [(name, "list") for name in ("winner", "loser", "p_winner", "weight")]
    grouped = pairs.take(kept).group_by("query", use_threads=False).aggregate(lists)
    return grouped.rename_columns([name.removesuffix("_list") for name in grouped.column_names])


def _sample_per_query(queries: pa.ChunkedArray, limit: int, seed: int) -> np.ndarray:
    """Rows to keep, ascending: at most `limit` of each query. `queries` is sorted."""
    codes = queries.combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.lexsort((np.random.default_rng(seed).random(len(codes)), codes))
    rank_in_query = np.arange(len(codes)) - np.searchsorted(codes, codes)
    return np.sort(order[rank_in_query < limit])


def flat(lists: pa.ChunkedArray) -> np.ndarray:
    """A list column -> its values, row after row."""
    return pc.list_flatten(lists).to_numpy(zero_copy_only=False)


def make_batch(corpus: Corpus, queries: np.ndarray, captions: np.ndarray) -> dict[str, Any]:
    """The batch of those rows of `corpus.queries` and `corpus.captions`; each image and text stands once.

    Returns `images` int32 [N] (rows of `corpus.image_ids`) and `texts` (list of T), and index arrays into
    them: per pair `pair_query`, `pair_winner`, `pair_loser` int64 [P], `p_winner`, `winner_reference`,
    `loser_reference` float32 [P], `pair_weight` float32 [P]; per caption pair `caption_image`,
    `caption_text` int64 [C].

    The weights of a query's pairs sum to 1 / number of queries in the batch: every query counts the same,
    however many pairs it has and however little they weigh, and the mean over batches is the mean over their
    queries.
    """
    chosen, pairs = corpus.queries.take(queries), corpus.captions.take(captions)
    num_pairs = pc.list_value_length(chosen["winner"]).to_numpy(zero_copy_only=False)
    of_query, weight = np.repeat(np.arange(len(queries)), num_pairs), flat(chosen["weight"])
    share = weight / np.bincount(of_query, weight)[of_query]  # of its query
    of_pairs = [flat(chosen["winner"]), flat(chosen["loser"])]
    images, places = np.unique(np.concatenate([*of_pairs, pairs["image"].to_numpy()]), return_inverse=True)
    texts, text_places = _distinct(chosen["query"].to_pylist() + pairs["caption"].to_pylist())
    winner, loser, caption_image = np.split(places, np.cumsum([len(rows) for rows in of_pairs]))
    return {
        "images": images.astype(np.int32),
        "texts": texts,
        "pair_query": text_places[of_query],
        "pair_winner": winner,
        "pair_loser": loser,
        "p_winner": flat(chosen["p_winner"]),
        "winner_reference": flat(chosen["winner_reference"]),
        "loser_reference": flat(chosen["loser_reference"]),
        "pair_weight": (share / len(queries)).astype(np.float32),
        "caption_image": caption_image,
        "caption_text": text_places[len(queries) :],
    }


def _distinct(texts: list[str]) -> tuple[list[str], np.ndarray]:
    """The distinct texts in order of first appearance, and each text's place among them, int64."""
    places: dict[str, int] = {}
    rows = [places.setdefault(text, len(places)) for text in texts]
    return list(places), np.array(rows, np.int64)
