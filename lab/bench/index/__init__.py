"""Measures the ANN index: how much of the exact answer it finds, how fast, on as many vectors as one likes.

    kallos bench index
    kallos bench index --num-rows 1000000 --dim 512

Vectors and queries are drawn from one mixture of Gaussians, whose variances fall off as 1 / axis: clustered
and of few effective dimensions, as the embeddings of images are. The index is built and its settings are
chosen as `kallos index` does it; recall is then measured on queries that had no part in the choice.
"""
