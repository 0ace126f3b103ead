"""Queries -> preferences: rephrase, retrieve, rerank, partial order, as one streaming Ray Data pipeline.

Reads `embeddings_<encoder>` and `images`; writes `preferences` (ordered pairs) and `rankings` (one row a
query, written after its preferences, so that it marks the query as done).

    kallos label --num-queries 64
    kallos label --queries queries.parquet --source lmm_pair

Queries come from a file or are drawn from the captions. A run is named by what determines its labels
(`run_id`), so the same command adds nothing, one that was killed continues, and more queries extend the
run.
"""
