"""Queries -> preferences: rephrase, retrieve, re-rank, partial order, as one streaming Ray Data pipeline.

Reads `embeddings_<encoder>` and `images`. Writes `preferences` (ordered pairs) and `rankings` (one row per
query, written after its preferences, so that it marks the query as done).

    kallos label --num-queries 64
    kallos label --queries queries.parquet --source lmm_pair

Queries come from a file or are drawn from the captions. A run is named by a hash of everything that
determines its labels (`run_id`). So the same command adds nothing, a killed one resumes, and more queries
extend the run.
"""
