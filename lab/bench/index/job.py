"""Measures the approximate index: its recall of the exact results, and its speed.

    kallos bench index
    kallos bench index --num-rows 1000000 --dim 512

Vectors and queries come from one mixture of Gaussians whose variances decrease as 1 / axis: like embeddings
of images, they are clustered and have few effective dimensions. The index is built and its search effort
chosen as in `kallos index`; recall is then measured on other queries.
"""

import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from actors.encoder import vector_array
from actors.retriever import Retriever
from cluster import command
from cluster.tables import Store, embeddings_schema, embeddings_table, now
from jobs.index import ann, tuning
from lab.bench.index.config import BenchIndexConfig
from lab.bench.report import report, spread

FINGERPRINT = "0" * 16
BATCH_ROWS = 10_000
ROWS_PER_CLUSTER = 1000
DEVIATION = 0.7  # expected distance of a vector from the centre of its cluster, which has length 1
MILLION = 1_000_000
MAX_EXACT_QUERIES = 20


class Mixture:
    """Clusters of unit vectors; the same seed draws the same vectors."""

    def __init__(self, num_clusters: int, dim: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.centres = _normalised(self.rng.standard_normal((num_clusters, dim), np.float32))
        deviations = 1 / np.sqrt(np.arange(1, dim + 1, dtype=np.float32))
        self.deviations = DEVIATION * deviations / np.linalg.norm(deviations)

    def draw(self, count: int) -> np.ndarray:
        """The next `count` vectors, L2-normalised float32 [count, dim]."""
        centres = self.centres[self.rng.integers(len(self.centres), size=count)]
        noise = self.rng.standard_normal(centres.shape, np.float32)
        return _normalised(centres + noise * self.deviations)


def run(config: BenchIndexConfig) -> dict[str, Any]:
    """Write the table, build the index, choose the search effort, and measure."""
    profile, _ = command.settings(config)
    mixture = Mixture(max(1, config.num_rows // ROWS_PER_CLUSTER), config.dim, config.seed)
    with tempfile.TemporaryDirectory(prefix="kallos-bench-") as folder:
        store = Store(folder)
        started = time.perf_counter()
        table = write(store, mixture, config)
        written = time.perf_counter()
        ann.build_ann(table, ann_min_rows=1)
        built = time.perf_counter()
        swept = tuning.sweep(store, FINGERPRINT, mixture.draw(config.num_queries))
        effort = tuning.choose(swept, profile.index.recall).effort
        retriever = Retriever(store, FINGERPRINT, effort=effort)
        runs = [measure(retriever, mixture.draw(config.num_queries)) for _ in range(config.num_runs)]
        some = mixture.draw(min(config.num_queries, MAX_EXACT_QUERIES))
        ((_, exact_p50_ms),) = tuning.timed([retriever], some, exact=True)
    name = "recall_at_10_1m" if config.num_rows >= MILLION else "recall_at_10"
    ratios = {name: spread([recall for recall, _ in runs])}
    figures = {
        "num_rows": config.num_rows,
        "dim": config.dim,
        "num_queries": config.num_queries,
        "recall_target": profile.index.recall,
        **asdict(effort),
        "write_s": round(written - started, 2),
        "build_s": round(built - written, 2),
        "p50_ms": round(median(p50_ms for _, p50_ms in runs), 3),
        "exact_p50_ms": round(exact_p50_ms, 3),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    return report("index", ratios, figures)


def write(store: Store, mixture: Mixture, config: BenchIndexConfig) -> Any:
    """Write the table of vectors batch by batch; returns it."""
    schema = embeddings_schema(config.dim)
    batches = pa.RecordBatchReader.from_batches(schema, _batches(mixture, config, schema))
    return store.database.create_table(embeddings_table(FINGERPRINT), data=batches, schema=schema)


def measure(retriever: Retriever, queries: np.ndarray) -> tuple[float, float]:
    """recall@10 on the queries [Q, D], and the median milliseconds of a query."""
    ((found, p50_ms),) = tuning.timed([retriever], queries)
    true = retriever.search(queries, tuning.RECALL_AT, exact=True)
    return tuning.recall(found, true), p50_ms


def _batches(mixture: Mixture, config: BenchIndexConfig, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    moment = now()
    for start in range(0, config.num_rows, BATCH_ROWS):
        numbers = range(start, min(start + BATCH_ROWS, config.num_rows))
        constant = {"caption": "", "width_px": 640, "height_px": 480, "tags": [], "source": "bench"}
        columns: dict[str, Any] = {name: [value] * len(numbers) for name, value in constant.items()}
        columns |= {"added_at": [moment] * len(numbers), "aesthetic": [0.5] * len(numbers)}
        columns["image_id"] = [f"{number:064x}" for number in numbers]
        columns["vector"] = vector_array(mixture.draw(len(numbers)), config.dim)
        yield pa.RecordBatch.from_pydict(columns, schema)


def _normalised(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
