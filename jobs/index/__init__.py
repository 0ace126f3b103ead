"""Give an encoder its index: embed images, build an ANN index where one pays, choose how hard to search it.

    kallos index --encoder candidate
    kallos index --optimize             # take what was ingested since into the index, join small files

`images` -> `embeddings_<encoder>`, and a row in `indexes` for each measurement that tells something new: the
fastest settings whose recall@10 reaches the profile's `index.recall`. An encoder whose image side equals its
parent's (aligned in `text` mode) takes over the parent's vectors.
"""
