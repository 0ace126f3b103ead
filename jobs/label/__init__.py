"""Turn queries into preferences: rephrase, retrieve, re-rank, arrange in a partial order.

    kallos label --num-queries 64
    kallos label --queries queries.parquet --source lmm_pair
    kallos label --num-queries 64 --votes votes.csv
    kallos label --explain "a harbour at dusk"

Queries come from a file, or are drawn from the captions. One streaming Ray Data pipeline reads
`embeddings_<encoder>` and `images`. It writes `preferences` (ordered pairs) and `rankings`, whose one row per
query marks the query as done.

If a query cannot be labelled or an image cannot be read, the reason is in `rejects` and the rest is labelled.
The same holds for a query on which an engine fails or dies. If no query is labelled, the exit status is 1.

The name of a run (`run_id`) is a hash of everything that determines its rankings. The same command therefore
adds nothing, a killed one resumes, and more queries extend the run.

At the end `p_winner` of the whole run is calibrated: on people's votes, or else on the judge's order
consistency (`jobs/label/calibration.py`). The report has the expected calibration error and the bins of the
reliability diagram. Votes can be added later: with `--votes` the same command only calibrates again.

`--explain` writes one HTML page about a query and changes nothing in the store.
"""
