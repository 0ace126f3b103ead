"""The cascade that alignment distils: rephrase, retrieve with the rephrased query, rate, order.

`kallos label` and `kallos evaluate` run it in batches: `Retrieval` is its first half, as two stages of a Ray
Data pipeline. The server's teacher runs the same steps for one query at a time. Pure numpy functions turn the
ratings into an order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from actors.encoder import load_registered
from actors.rephraser import Rephrase, rephraser_stage
from actors.retriever import Retriever
from actors.stages import ENGINE_RESTARTS, add_stage
from cluster.profile import Profile, Stage
from cluster.sql import in_list
from cluster.tables import EncoderRecord, Store

# When an encoder rates accuracy, this drop in log-probability costs one point.
NATS_PER_POINT = 0.75


@dataclass(frozen=True)
class Retrieval:
    """Rephrases queries and finds the `top_k` images nearest to each rephrased query.

    where: SQL filter on the embeddings table. exact: search without the ANN index. with_vectors: add the
    images' vectors. plain_on_error: retrieve with the query itself where rephrasing failed. only: query ->
    image_ids: for each query all of these are retrieved, and no others; None searches all images.
    """

    profile: Profile
    store: Store
    encoder: EncoderRecord
    style: str
    top_k: int
    where: str | None = None
    exact: bool = False
    with_vectors: bool = False
    plain_on_error: bool = False
    only: Mapping[str, Sequence[str]] | None = None

    @property
    def stages(self) -> dict[str, Stage]:
        """The resources of each stage. Encoding and searching a few queries is light, so it takes no GPU."""
        return {
            "rephrase": rephraser_stage(self.profile.rephraser, self.style),
            "retrieve": self.profile.encoder.stage.without_gpus(),
        }

    def rows(self, queries: Sequence[str]) -> ray.data.Dataset:
        """Rows of `query`, `rephrased`, `style` and the columns that `Retrieve` adds, in any order."""
        stages = self.stages
        rephrase = {"language_model": self.profile.rephraser, "style": self.style}
        # One block per batch, so that the engines of the pool work on different blocks at the same time.
        size = stages["rephrase"].batch_size
        table = pa.table({"query": pa.array(queries, pa.string())})
        rows = ray.data.from_arrow([table.slice(start, size) for start in range(0, len(queries), size)])
        rows = add_stage(
            rows,
            Rephrase,
            rephrase,
            stages["rephrase"],
            batch_format="numpy",
            max_restarts=ENGINE_RESTARTS,
        )
        return add_stage(rows, Retrieve, {"retrieval": self}, stages["retrieve"])


class Retrieve:
    """Ray Data actor, `batch_format="pyarrow"`, for rows as `Rephrase` returns them.

    Adds `image_ids` (list<string>, best first), `retrieval_scores` (list<float>, cosine in [-1, 1]) and, with
    vectors, `vectors` (list<list<float>>, L2-normalised). The lists are empty where there is no text.
    """

    def __init__(self, *, retrieval: Retrieval) -> None:
        settings, stage = retrieval.profile.encoder, retrieval.stages["retrieve"]
        self.retrieval = retrieval
        self.encoder = load_registered(
            retrieval.encoder,
            precision=settings.precision,
            num_threads=settings.num_threads,
            num_gpus=stage.num_gpus,
        )
        self.retriever = Retriever(retrieval.store, retrieval.encoder.encoder)

    def __call__(self, batch: pa.Table) -> pa.Table:
        queries, texts = ([str(text) for text in batch[name].to_pylist()] for name in ("query", "rephrased"))
        if self.retrieval.plain_on_error:
            texts = [text or query for query, text in zip(queries, texts, strict=True)]
        given = [index for index, text in enumerate(texts) if text]
        results: list[list[dict[str, Any]]] = [[] for _ in texts]
        found = self._search([queries[index] for index in given], [texts[index] for index in given])
        for index, images in zip(given, found, strict=True):
            results[index] = images
        ids = [[image["image_id"] for image in images] for images in results]
        scores = [[image["score"] for image in images] for images in results]
        batch = batch.append_column("image_ids", pa.array(ids, pa.list_(pa.string())))
        batch = batch.append_column("retrieval_scores", pa.array(scores, pa.list_(pa.float64())))
        if self.retrieval.with_vectors:
            vectors = [[image["vector"] for image in images] for images in results]
            batch = batch.append_column("vectors", pa.array(vectors, pa.list_(pa.list_(pa.float32()))))
        return batch

    def _search(self, queries: list[str], texts: list[str]) -> list[list[dict[str, Any]]]:
        settings, vectors = self.retrieval, self.encoder.encode_texts(texts)
        search = partial(self.retriever.search, exact=settings.exact, with_vectors=settings.with_vectors)
        if settings.only is None:
            return search(vectors, settings.top_k, where=settings.where)
        results = []
        for query, vector in zip(queries, vectors, strict=True):
            ids = settings.only[query]
            results += search(vector[None], len(ids), where=in_list("image_id", ids))
        return results


def cascade_order(accuracy: np.ndarray, aesthetics: np.ndarray, *, threshold: float) -> np.ndarray:
    """Order of K candidate images, int [K]: the accurate by aesthetics, then the inaccurate by accuracy.

    `accuracy` and `aesthetics` float [K] on the judge's scale 1 to 5; accurate is >= threshold. The
    candidates are in retrieval order, which settles ties. An image without a rating (NaN) comes last.
    """
    accuracy = np.nan_to_num(np.asarray(accuracy, float), nan=-np.inf)
    accurate = accuracy >= threshold
    beauty = np.nan_to_num(np.asarray(aesthetics, float), nan=-np.inf)
    return np.lexsort((np.where(accurate, -beauty, -accuracy), ~accurate))


def encoder_ratings(similarities: np.ndarray, best: np.ndarray | float, temperature: float) -> np.ndarray:
    """Accuracy of images for a query as an encoder rates it, float [N] in [1, 5]: the judge's scale.

    similarities: float [N], cosines with the query. best: that of the nearest image in the gallery, which is
    rated 5. Every `NATS_PER_POINT` of log-probability (similarity over temperature) below it costs a point.
    """
    below = (np.asarray(best, float) - np.asarray(similarities, float)) / (NATS_PER_POINT * temperature)
    return np.clip(5.0 - below, 1.0, 5.0)
