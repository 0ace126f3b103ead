"""Embed the images with an encoder and build its index.

    kallos index --encoder candidate
    kallos index --optimize             # add newly ingested images to the index and merge small files

Reads `images`, writes `embeddings_<encoder>`. From `index.ann_min_rows` images on, it builds an approximate
(ANN) index and measures several search efforts. It records the fastest one whose recall@10 reaches
`index.recall` as a row in `indexes`. If the encoder has the image tower of its parent (mode `text`), the
parent's vectors are copied instead of computed.
"""
