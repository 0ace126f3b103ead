"""The index job: adds missing vectors, updates the indexes, chooses the search effort."""

import time
from dataclasses import asdict
from typing import Any

from actors.encoder import Encoder, load_registered
from actors.missing_vectors import COUNTS, add_vectors, missing_images
from actors.retriever import Retriever
from actors.vectors import VectorTable
from cluster import command
from cluster.profile import Index
from cluster.tables import Store
from jobs.index import tuning
from jobs.index.ann import EXACT, build_ann, compact, index_ids, num_unindexed
from jobs.index.config import IndexConfig


def run(config: IndexConfig) -> dict:
    """Run the job and return its report."""
    started = time.monotonic()
    profile, store = command.settings(config)
    record = store.encoder(config.encoder)
    encoder = load_registered(record)
    vectors = VectorTable(store, encoder)
    counts = dict.fromkeys(COUNTS, 0)
    if not config.optimize:
        missing = missing_images(store, record.encoder, config.where)
        counts = add_vectors(vectors, profile, record, encoder, missing)
    embed_s = time.monotonic() - started
    table = store.open(vectors.name)
    unindexed = num_unindexed(table)
    kind = update_indexes(store, table, profile.index.ann_min_rows, compact_all=config.optimize)
    build_s = time.monotonic() - started - embed_s
    search = tune_search(store, encoder, kind, profile.index)
    return {
        "encoder": encoder.fingerprint,
        "num_rows": table.count_rows(),
        **counts,
        "num_unindexed_rows": {"before": unindexed, "after": num_unindexed(table)},
        "index": kind,
        **search,
        "seconds": {
            "embed": round(embed_s, 2),
            "build": round(build_s, 2),
            "total": round(time.monotonic() - started, 2),
        },
    }


def update_indexes(store: Store, table: Any, ann_min_rows: int, *, compact_all: bool) -> str:
    """Update indexes and files of `images` and the table of vectors; returns the kind of the ANN index."""
    for each in (store.open("images"), table):
        index_ids(each, ann_min_rows)
        compact(each, always=compact_all)
    return build_ann(table, ann_min_rows)


def tune_search(store: Store, encoder: Encoder, kind: str, settings: Index) -> dict[str, Any]:
    """Choose the search effort and record it in `indexes`; returns these figures for the report."""
    retriever = Retriever(store, encoder.fingerprint)
    row = {"encoder": encoder.fingerprint, "kind": kind, "num_rows": retriever.table.count_rows()}
    if kind == EXACT or not row["num_rows"]:
        tuning.record(store, row | {"recall_at_10": 1.0, "num_queries": 0})
        return {"recall@10": 1.0}
    queries = tuning.recall_queries(retriever, encoder, settings.num_recall_queries)
    swept = tuning.sweep(store, encoder.fingerprint, queries)
    chosen = tuning.choose(swept, settings.recall)
    tuning.record(store, row | chosen.row() | {"num_queries": len(queries)})
    return {
        "recall@10": chosen.recall_at_10,
        "recall_target": settings.recall,
        "target_reached": chosen.recall_at_10 >= settings.recall,
        **asdict(chosen.effort),
        "p50_ms": chosen.p50_ms,
        "sweep": [measurement.row() for measurement in swept],
    }
