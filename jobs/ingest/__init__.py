"""Point Kallos at images: read -> check, decode -> embed -> `images`, `embeddings_<encoder>`, `rejects`.

    kallos ingest --source photos/
    kallos ingest --source s3://bucket/shards/ --kind webdataset --label stock-2024

A source is a folder (local or any pyarrow filesystem, with an optional metadata table), Parquet, WebDataset
tars or a Lance table. Images that the tables hold already are skipped, so a killed run continues when started
again. The profile's encoder embeds; then every other encoder that an alias names and that was indexed, such
as `live` after a promotion, gets vectors of the same images, so that searches find them at once.
"""
