"""Read images from a source, check them, embed them, write them to the tables.

    kallos ingest --source photos/
    kallos ingest --source s3://bucket/shards/ --kind webdataset --label stock-2024

A source is a folder (local or on any pyarrow filesystem, optionally with a metadata table), Parquet files,
WebDataset tars or a Lance table. The job writes the tables `images`, `embeddings_<encoder>` and `rejects`.
Images that the tables already hold are skipped, so a killed run resumes when it is started again.

Without `--kind`, a source that contains image files is read as a folder. The exception is a dataset of
tars or Parquet files with a few images beside it: at most ten images for each such file, fewer bytes in
total, and not all of them with a text or JSON file of their own. The job prints a line on stderr with the
kind that it recognised and the files of other kinds that it does not read.

Captions and tags of a folder come from its metadata tables, else from text and JSON files beside the images:
`a.txt`, `a.json` or `a.jpg.json` for `a.jpg`. In a tar, an image also has the words of its name up to an
earlier dot, as in `7.left.jpg` and `7.json`; the closer name takes precedence. A JSON object's caption
replaces a text file's. Text is UTF-8, or UTF-16 with a byte-order mark. If words cannot be read, or a tar has
the names of an image and of its words more than once, the image is rejected.

A metadata table is `metadata.parquet`, `metadata.csv` or `metadata.jsonl` in any folder; its column
`file_name` or `file` is relative to that folder. A name, also of words beside an image, is matched as it is,
else with `/` for `\\`, then with composed letters, then regardless of case, if exactly one image fits. The
report names the first rows without an image and the first images without words. A CSV is delimited by a
comma, semicolon, tab or `|`, and its cells are text, even 007 and NA. If a row is not UTF-8, is broken, has
missing fields, or contradicts another row, or itself in a column that occurs twice, its image is rejected.

In every source, a text is one caption and a list is several: the first is the caption, the longest of the
others the detailed caption, unless there is a `detailed_caption`. A dictionary gives its entry `caption`,
`raw`, `text` or `en`, else its first text. Numbers and dates become text; true, false and null are ignored.
Parquet files of one folder may differ in columns and types. A Hugging Face image `{bytes, path}` without
bytes, and a row without bytes and `uri`, is read from its `path`.

`rejects` has one row, with the reason, for each input that could not be ingested: also for pictures in other
formats or without an image's extension, FIFOs and devices, broken links, links to folders (give the folder as
another source), folders that cannot be entered, and words in a tar without an image. Files that are not
pictures, hidden files and folders, and folders of thumbnails or deleted files (`@eaDir`, `$RECYCLE.BIN`) are
ignored.

In the report `num_inputs` is the sum of `num_images`, `num_known`, `num_duplicates` and `num_rejects`. Each
of a folder's `num_files` is an input, one of the `num_word_files`, or one of the `num_ignored`, which
`ignored` counts by ending, or by what hides them.

The profile's encoder embeds the images. Then every other encoder that has both an alias and an index, such as
`live` after a promotion, embeds the same images, so that every search finds them.
"""
