"""The training corpus, the schedule of its batches, and the arrays of one batch.

Pure functions over Arrow tables and numpy arrays: no Ray, no model. A batch is one forward pass; an optimiser
step takes a fixed number of batches. The schedule does not depend on the number of workers: two workers with
one batch each make the same step as one worker that accumulates the gradients of two.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import UserError
from cluster.profile import Align
from cluster.schemas import HUMAN, near_ties

# Each use of the seed has its own random stream.
QUERY_STREAM, CAPTION_STREAM, GUARD_STREAM = range(3)


@dataclass(frozen=True)
class Corpus:
    """The data of one alignment, in Arrow memory that Ray's processes share without copying.

    `queries` has a row per query: `query`, and for its pairs lists of equal length: `winner` and `loser`
    (int32 rows of `image_ids`), `p_winner` (float32, the probability that the winner is better), `weight`
    (float32 > 0, see `group_pairs`), `winner_reference` and `loser_reference` (float32 scores of the
    reference, divided by tau).
    `captions` has a row per caption pair: `image` (int32 row of `image_ids`) and `caption`. `guard` has the
    held-out caption pairs, in the same columns. `image_ids` are the distinct images of all three.
    """

    queries: pa.Table
    captions: pa.Table
    guard: pa.Table
    image_ids: pa.Array


@dataclass(frozen=True)
class BatchSchedule:
    """The queries and caption pairs of every batch of every epoch, the same for any number of workers.

    Each epoch is shuffled with (seed, epoch). The epoch's first queries fill up its last step, so that all
    steps have the same size.
    """

    num_queries: int
    num_captions: int
    queries_per_batch: int
    caption_batch_size: int  # 0 = no caption pairs
    batches_per_step: int  # of all workers together
    seed: int

    @property
    def num_steps(self) -> int:
        """Optimiser steps of an epoch."""
        return -(-self.num_queries // (self.queries_per_batch * self.batches_per_step))

    @property
    def num_batches(self) -> int:
        """Batches of an epoch, in the order of its steps."""
        return self.num_steps * self.batches_per_step

    def of_corpus(self, corpus: Corpus) -> "BatchSchedule":
        """The schedule of the queries and caption pairs of this corpus."""
        return replace(self, num_queries=corpus.queries.num_rows, num_captions=corpus.captions.num_rows)

    def queries(self, epoch: int) -> np.ndarray:
        """Rows of `Corpus.queries`, int [num_batches, queries_per_batch]."""
        return self._draw(QUERY_STREAM, epoch, self.num_queries, self.queries_per_batch)

    def captions(self, epoch: int) -> np.ndarray:
        """Rows of `Corpus.captions`, int [num_batches, caption_batch_size]."""
        return self._draw(CAPTION_STREAM, epoch, self.num_captions, self.caption_batch_size)

    def _draw(self, stream: int, epoch: int, num_rows: int, batch_size: int) -> np.ndarray:
        order = np.random.default_rng([self.seed, stream, epoch]).permutation(num_rows)
        return np.resize(order, (self.num_batches, batch_size))


def weigh_pairs(pairs: pa.Table, settings: Align) -> pa.Table:
    """Preference rows (`p_winner`, `consistent`, `source`) -> those of positive weight, with `weight`.

    `weight` (float32) is 1, times `near_tie_weight` for a near tie, times `inconsistent_weight` if the judge
    contradicted itself when the order of the images was swapped, times `human_weight` if a person decided.
    Raises UserError when no pair has a positive weight.
    """
    near = near_ties(pairs["p_winner"].to_numpy())
    consistent = pairs["consistent"].to_numpy()
    human = pc.equal(pairs["source"], pa.scalar(HUMAN)).to_numpy()
    weight = np.where(near, settings.near_tie_weight, 1.0)
    weight *= np.where(consistent, 1.0, settings.inconsistent_weight)
    weight *= np.where(human, settings.human_weight, 1.0)
    if not (weight > 0).any():
        raise UserError(
            f"All {pairs.num_rows} preferences have weight 0: they are near ties, inconsistent or people's, "
            f"and align.near_tie_weight is {settings.near_tie_weight:g}, align.inconsistent_weight "
            f"{settings.inconsistent_weight:g}, align.human_weight {settings.human_weight:g}: raise these "
            "weights, or label with another judge."
        )
    return pairs.append_column("weight", pa.array(weight.astype(np.float32))).filter(pa.array(weight > 0))


def group_pairs(pairs: pa.Table, *, max_pairs_per_query: int, evidence_cap: float, seed: int) -> pa.Table:
    """Rows of `query`, `winner`, `loser`, `p_winner` and `weight` -> a row per query with lists of its pairs.

    The evidence of a query is the sum of its pairs' weights. The query's own weight is min(1, evidence /
    `evidence_cap`), scaled so that the mean over all queries is 1: the cap then does not change the balance
    with L_pt. Its pairs share that weight in proportion to theirs, in the new `weight`.

    The result does not depend on the order of the rows. A query with more than `max_pairs_per_query` pairs
    keeps a seeded sample of them, and its weight.
    """
    # `p_winner` and `weight` break ties between equal pairs from different judges or people.
    order = ("query", "winner", "loser", "p_winner", "weight")
    pairs = pairs.sort_by([(name, "ascending") for name in order])
    codes = pairs["query"].combine_chunks().dictionary_encode().indices.to_numpy()
    weight = pairs["weight"].to_numpy()
    of_query = np.minimum(1, np.bincount(codes, weight) / evidence_cap)
    kept = _sample_per_query(codes, max_pairs_per_query, seed)
    share = weight[kept] / np.bincount(codes[kept], weight[kept])[codes[kept]]
    weight = pa.array((share * of_query[codes[kept]] / of_query.mean()).astype(np.float32))
    groups = pairs.take(kept).drop_columns("weight").append_column("weight", weight)
    lists = groups.group_by("query", use_threads=False).aggregate(
        [("winner", "list"), ("loser", "list"), ("p_winner", "list"), ("weight", "list")]
    )
    return lists.rename_columns([name.removesuffix("_list") for name in lists.column_names])


def _sample_per_query(codes: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Rows to keep, ascending: at most `limit` of each query. `codes`: each row's query, int [N], sorted."""
    order = np.lexsort((np.random.default_rng(seed).random(len(codes)), codes))
    rank_in_query = np.arange(len(codes)) - np.searchsorted(codes, codes)
    return np.sort(order[rank_in_query < limit])


def flat(lists: pa.ChunkedArray) -> np.ndarray:
    """The values of a list column, row after row."""
    return pc.list_flatten(lists).to_numpy(zero_copy_only=False)


def strings(column: pa.ChunkedArray) -> list[str]:
    """The values of a string column without nulls."""
    return [str(value) for value in column.to_pylist()]


def make_batch(corpus: Corpus, queries: np.ndarray, captions: np.ndarray) -> dict[str, Any]:
    """The batch of these rows of `corpus.queries` and `corpus.captions`, with each image and text once.

    Returns `images` int32 [N] (rows of `corpus.image_ids`), `texts` (list of T), and arrays of indices into
    them: per pair `pair_query`, `pair_winner`, `pair_loser` int64 [P], `p_winner`, `winner_reference`,
    `loser_reference`, `pair_weight` float32 [P]; per caption pair `caption_image`, `caption_text` int64 [C].

    A pair's weight is divided by the number of queries in the batch, so the mean over batches is the mean
    over their queries.
    """
    chosen, pairs = corpus.queries.take(queries), corpus.captions.take(captions)
    of_query = pc.list_parent_indices(chosen["winner"]).to_numpy()
    pair_rows = [flat(chosen["winner"]), flat(chosen["loser"])]
    images, indices = np.unique(np.concatenate([*pair_rows, pairs["image"].to_numpy()]), return_inverse=True)
    texts = pa.array([*strings(chosen["query"]), *strings(pairs["caption"])], pa.string()).dictionary_encode()
    text_indices = texts.indices.to_numpy().astype(np.int64)
    winner, loser, caption_image = np.split(indices, np.cumsum([len(rows) for rows in pair_rows]))
    return {
        "images": images.astype(np.int32),
        "texts": texts.dictionary.to_pylist(),
        "pair_query": text_indices[of_query],
        "pair_winner": winner,
        "pair_loser": loser,
        "p_winner": flat(chosen["p_winner"]),
        "winner_reference": flat(chosen["winner_reference"]),
        "loser_reference": flat(chosen["loser_reference"]),
        "pair_weight": (flat(chosen["weight"]) / len(queries)).astype(np.float32),
        "caption_image": caption_image,
        "caption_text": text_indices[len(queries) :],
    }
