"""Give an encoder its index: embed images, build an ANN index where one pays off, choose the search effort.

    kallos index --encoder candidate
    kallos index --optimize             # add newly ingested rows to the index and merge small files

The job reads `images` and writes `embeddings_<encoder>`, and a row in `indexes` for each new measurement: the
fastest settings whose recall@10 reaches the profile's `index.recall`. An encoder with the same image tower as
its parent (aligned in mode `text`) copies the parent's vectors.
"""
