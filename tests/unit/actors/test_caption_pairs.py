"""The contrastive loss in closed form, and ranks against a loop over pairs, with ties and NaNs."""

import math

import numpy as np
import pytest
import torch
from open_clip.loss import ClipLoss
from torch.nn import functional

from actors.caption_pairs import contrastive_loss, image_to_text_ranks, pair_ranks, text_to_image_ranks


def unit(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


def test_contrastive_loss_equals_open_clip():
    images, texts = unit(7, 5, seed=1), unit(7, 5, seed=2)
    losses = contrastive_loss(images, texts, temperature=0.05)
    assert losses.shape == (7,)
    expected = ClipLoss()(images, texts, logit_scale=torch.tensor(20.0))
    assert losses.mean().item() == pytest.approx(expected.item(), abs=1e-5)


def test_contrastive_loss_of_orthogonal_pairs_in_closed_form():
    features = torch.eye(4)
    losses = contrastive_loss(features, features, temperature=0.5)
    assert losses.tolist() == pytest.approx([math.log(math.exp(2) + 3) - 2] * 4)


def test_rows_with_the_same_caption_are_not_negatives():
    images, texts = unit(4, 6, seed=3), unit(4, 6, seed=4)
    same = torch.eye(4, dtype=torch.bool)
    same[0, 1] = same[1, 0] = True
    losses = contrastive_loss(images, texts, temperature=0.1, same=same)
    without_row_1 = contrastive_loss(images[[0, 2, 3]], texts[[0, 2, 3]], temperature=0.1)
    assert losses[0].item() == pytest.approx(without_row_1[0].item(), abs=1e-6)
    assert losses[2].item() > without_row_1[1].item()  # row 1 is still a negative of row 2


def test_learned_temperature_gets_the_gradient_of_clips_scale():
    images, texts = unit(7, 5, seed=1), unit(7, 5, seed=2)
    ours, theirs = (torch.tensor(3.0, requires_grad=True) for _ in range(2))
    contrastive_loss(images, texts, temperature=torch.exp(-ours)).mean().backward()
    ClipLoss()(images, texts, logit_scale=theirs.exp()).backward()
    assert ours.grad.item() == pytest.approx(theirs.grad.item(), abs=1e-5) != 0


def naive_ranks(texts, owners, vectors):
    """One text at a time over the full list: rank of the best own image, ties before it."""
    ranks = []
    for text, vector in enumerate(texts):
        scores = [float(vector @ image) for image in vectors]
        best = max(score for score, owner in zip(scores, owners, strict=True) if owner == text)
        ranks.append(1 + sum(s >= best for s, o in zip(scores, owners, strict=True) if o != text))
    return np.array(ranks)


def blocks_of(owners, vectors, size):
    return lambda: ((owners[i : i + size], vectors[i : i + size]) for i in range(0, len(owners), size))


@pytest.mark.parametrize("block_rows", [1, 7, 1000])
@pytest.mark.parametrize("num_texts, num_images", [(1, 1), (5, 13), (17, 101)])
def test_ranks_equal_a_naive_oracle_with_ties(num_texts, num_images, block_rows):
    rng = np.random.default_rng(num_images)
    # Small integers: many scores are exactly equal, and float32 sums are exact in any order.
    texts = rng.integers(-1, 2, (num_texts, 3)).astype(np.float32)
    vectors = rng.integers(-1, 2, (num_images, 3)).astype(np.float32)
    owners = np.concatenate([np.arange(num_texts), rng.integers(-1, num_texts, num_images - num_texts)])
    ranks = text_to_image_ranks(texts, blocks_of(owners, vectors, block_rows))
    np.testing.assert_array_equal(ranks, naive_ranks(texts, owners, vectors))


def test_collapsed_encoder_gets_the_last_rank_and_no_recall():
    texts, vectors = np.ones((2, 4), np.float32), np.ones((6, 4), np.float32)
    owners = np.array([0, 1, -1, -1, 0, -1])
    ranks = text_to_image_ranks(texts, blocks_of(owners, vectors, 4))
    assert ranks.tolist() == [5, 6]  # four other images tie with text 0's two, five with text 1's one
    assert (ranks <= 5).tolist() == [True, False]


NAN = float("nan")


@pytest.mark.parametrize(
    ("gallery", "rank"),
    [
        ([1.0, 0.5, 0.2], 1),
        ([NAN, 0.5, 0.2], 3),  # its own score is NaN: all others rank before it
        ([1.0, NAN, 0.2], 2),  # another's score is NaN: that one ranks before it
        ([NAN, NAN, NAN], 3),
    ],
)
@pytest.mark.parametrize("block_rows", [1, 3])
def test_nan_counts_against_the_encoder(gallery, rank, block_rows):
    vectors = np.array(gallery, np.float32)[:, None]
    blocks = blocks_of(np.array([0, -1, -1]), vectors, block_rows)
    assert text_to_image_ranks(np.ones((1, 1), np.float32), blocks).tolist() == [rank]


def test_each_image_ranks_its_own_text_among_all_texts():
    texts = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    images = np.array([[0, 1], [0, 1], [1, 0], [NAN, 0]], np.float32)
    owners = np.array([1, 0, 2, 0])
    assert image_to_text_ranks(images, owners, texts).tolist() == [1, 3, 2, 3]
    assert image_to_text_ranks(images[:1], np.array([0]), np.ones((3, 2), np.float32)).tolist() == [3]  # ties
    assert image_to_text_ranks(images[:0], owners[:0], texts).tolist() == []


def test_text_without_an_image_gets_the_last_rank():
    blocks = blocks_of(np.array([1, -1]), np.ones((2, 3), np.float32), 2)
    assert text_to_image_ranks(np.ones((2, 3), np.float32), blocks).tolist() == [3, 2]


def test_ranks_of_pairs_equal_a_plain_loop():
    rng = np.random.default_rng(0)
    texts, images = rng.integers(-3, 4, (2, 37, 5)).astype(np.float32)
    assert pair_ranks(texts, images).tolist() == naive_ranks(texts, np.arange(37), images).tolist()
    assert pair_ranks(np.full((3, 2), np.nan), np.ones((3, 2))).tolist() == [3, 3, 3]


def test_own_image_never_competes_with_itself():
    vectors = np.random.default_rng(1).normal(size=(500, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (pair_ranks(vectors, vectors) == 1).all()
