"""`kallos bench serve`: what the endpoint adds to one search, what batching gains, what a promotion breaks.

    kallos bench serve --num-images 20000

search_p50_over_direct: median latency of `/v1/search`, one request at a time, over the median of one encoder
forward and one LanceDB search called directly, in turns.
search_batched_over_unbatched: requests per second at `--concurrency`, with batches of the profile's size over
batches of one.
search_qps_over_flask_lock: the same, over the same encoder and index behind Flask with a lock.
promotion: `live` changes hands again and again under load; an answer is mixed when its images are not what
the encoder that it names finds.
soak: replicas are killed under load; what feedback was answered with 200 has to be in the table.
"""
