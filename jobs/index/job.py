"""The index job: vectors for the images that have none, then the indexes, and how to search them."""

import time
from dataclasses import asdict
from typing import Any

from actors.encoder import Encoder, load_registered
from actors.missing_vectors import add_vectors, missing_images
from actors.retriever import Retriever
from actors.vectors import VectorTable
from cluster import command
from cluster.profile import Index
from cluster.tables import Store
from jobs.index import tuning
from jobs.index.ann import EXACT, build_ann, compact, index_ids, num_unindexed
from jobs.index.config import IndexConfig


def run(config: IndexConfig) -> dict:
    """The whole job; see the package."""
    started = time.monotonic()
    profile, store = command.settings(config)
    record = store.encoder(config.encoder)
    encoder = load_registered(record)
    vectors = VectorTable(store, encoder)
    counts = dict.fromkeys(("num_copied", "num_embedded", "num_from_preview"), 0)
    if not config.optimize:
        missing = missing_images(store, record.encoder, config.where)
        counts = add_vectors(vectors, profile, record, encoder, missing)
    embed_s = time.monotonic() - started
    table = store.open(vectors.name)
    unindexed = num_unindexed(table)
    kind = bring_up_to_date(store, table, profile.index.ann_min_rows, compact_all=config.optimize)
    build_s = time.monotonic() - started - embed_s
    measured = measure(store, encoder, kind, profile.index)
    return {
        "encoder": encoder.fingerprint,
        "num_rows": table.count_rows(),
        **counts,
        "num_unindexed_rows": {"before": unindexed, "after": num_unindexed(table)},
        "index": kind,
        **measured,
        "seconds": {
            "embed": round(embed_s, 2),
            "build": round(build_s, 2),
            "total": round(time.monotonic() - started, 2),
        },
    }


def bring_up_to_date(store: Store, table: Any, ann_min_rows: int, *, compact_all: bool) -> str:
    """Indexes and files of `images` and the table of vectors; returns the kind of the vectors' index."""
    for one in (store.open("images"), table):
        index_ids(one, ann_min_rows)
        if compact_all:
            one.optimize()
        else:
            compact(one)
    return build_ann(table, ann_min_rows)


def measure(store: Store, encoder: Encoder, kind: str, settings: Index) -> dict[str, Any]:
    """Choose how hard the index is searched, keep that in `indexes`; returns the report's part about it."""
    retriever = Retriever(store, encoder.fingerprint, encoder)
    row = {"encoder": encoder.fingerprint, "kind": kind, "num_rows": retriever.table.count_rows()}
    if kind == EXACT or not row["num_rows"]:
        tuning.keep(store, row | {"recall_at_10": 1.0, "num_queries": 0})
        return {"recall@10": 1.0}
    queries = tuning.recall_queries(retriever, encoder, settings.num_recall_queries)
    swept = tuning.sweep(store, encoder.fingerprint, queries)
    chosen = tuning.choose(swept, settings.recall)
    tuning.keep(store, row | chosen.row() | {"num_queries": len(queries)})
    return {
        "recall@10": chosen.recall_at_10,
        "recall_target": settings.recall,
        "target_reached": chosen.recall_at_10 >= settings.recall,
        **asdict(chosen.effort),
        "p50_ms": chosen.p50_ms,
        "sweep": [one.row() for one in swept],
    }
