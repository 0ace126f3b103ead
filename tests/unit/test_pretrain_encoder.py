"""The ranks behind the encoder card's recall, against a loop over pairs."""

import numpy as np

from jobs.pretrain.encoder import own_ranks


def test_ranks_equal_the_naive_ones():
    rng = np.random.default_rng(0)
    captions, images = rng.integers(-3, 4, (2, 37, 5)).astype(np.float32)  # whole numbers: many exact ties
    naive = [
        sum(bool(captions[i] @ images[j] >= captions[i] @ images[i]) for j in range(37) if j != i)
        for i in range(37)
    ]
    assert own_ranks(captions, images).tolist() == naive


def test_an_own_image_is_never_its_own_rival():
    vectors = np.random.default_rng(1).normal(size=(500, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert not own_ranks(vectors, vectors).any()


def test_ties_and_what_is_no_number_count_against_the_encoder():
    assert own_ranks(np.ones((3, 2), np.float32), np.ones((3, 2), np.float32)).tolist() == [2, 2, 2]
    assert own_ranks(np.full((3, 2), np.nan), np.ones((3, 2))).tolist() == [2, 2, 2]
