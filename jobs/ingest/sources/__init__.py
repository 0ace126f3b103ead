"""Opens a source of images: a folder, WebDataset tars, Parquet files or a Lance table."""
