"""Read images from a source, check them, embed them, write them to the tables.

    kallos ingest --source photos/
    kallos ingest --source s3://bucket/shards/ --kind webdataset --label stock-2024

A source is a folder (local or on any pyarrow filesystem, optionally with a metadata table), Parquet files,
WebDataset tars or a Lance table. The job writes the tables `images`, `embeddings_<encoder>` and `rejects`.
Images that the tables already hold are skipped, so a killed run resumes when it is started again.

The profile's encoder embeds the images. Then every other encoder that has both an alias and an index, such as
`live` after a promotion, embeds the same images, so that every search finds them.
"""
