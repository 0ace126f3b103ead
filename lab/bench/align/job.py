"""Compares a training step of alignment with a plain DPO loop, in turns, in one process.

Kallos encodes each distinct image and query of a batch once and gathers the scores of the pairs; the
scores of the reference are stored, not computed. The plain loop encodes query, winner and loser of every
pair, with the policy and with the reference. Both sides have the same model, optimiser, threads and random
pixels, and no contrastive loss.

    kallos bench align --profile mini
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actors.encoder import Encoder
from cluster import command
from cluster.errors import UserError
from cluster.profile import Profile
from jobs.align.learner import Learner
from jobs.align.objectives import dpo_loss
from lab.bench.align.config import BenchAlignConfig
from lab.bench.report import comparison, report
from lab.preference_batch import preference_batch

WORDS = ("sailboat", "teapot", "lighthouse", "guitar", "forest", "bridge", "lantern", "violin")
NUM_SCHEDULE_STEPS = 1000  # more than a turn runs, so that the learning rate stays positive


@dataclass(frozen=True)
class RandomPairs:
    """The pairs of some queries' partial orders, over random pixels. Q queries, N images of each, P pairs."""

    texts: list[str]  # [Q]
    pixels: np.ndarray  # uint8 [Q * N, 3, H, W]
    query: np.ndarray  # int64 [P], rows of `texts`
    winner: np.ndarray  # int64 [P], rows of `pixels`
    loser: np.ndarray  # int64 [P], rows of `pixels`


def run(config: BenchAlignConfig) -> dict[str, Any]:
    """Measure both modes; the ratios are of pairs per second."""
    profile, _ = command.settings(config)
    if profile.label.rows * profile.label.columns < 2:
        raise UserError("label.rows x label.columns is 1, but a pair needs two images: raise one of them.")
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    num_threads = torch.get_num_threads()
    figures: dict[str, float] = {
        "num_threads": num_threads,
        "u": profile.label.rows,
        "v": profile.label.columns,
    }
    ratios = {}
    for mode in ("both", "text"):
        speeds = measure(config, profile, mode)
        ratios[f"align_pairs_over_naive_{mode}"] = comparison(speeds["ours"], speeds["naive"])
        for side, values in speeds.items():
            figures[f"{side}_pairs_per_s_{mode}"] = float(np.median(values))
    return report("align", ratios, figures)


def measure(config: BenchAlignConfig, profile: Profile, mode: str) -> dict[str, list[float]]:
    """Pairs per second of both sides, one value for each turn."""
    ours, naive = (make_learner(profile, mode, config.num_threads) for _ in range(2))
    pairs = make_pairs(config.num_queries, profile.label.rows, profile.label.columns, ours.encoder)
    reference = Encoder.load(profile.encoder.model, precision=profile.encoder.precision)
    batch = make_batch(pairs, reference, mode)
    naive_batches = random_batches(len(pairs.query), config.pairs_per_batch)
    sides: dict[str, Callable[[], int]] = {
        "ours": lambda: our_step(ours, batch),
        "naive": lambda: naive_step(naive, reference, pairs, next(naive_batches)),
    }
    for step in sides.values():
        step()  # warm up
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(config.num_runs):
        for name, step in sides.items():
            speeds[name].append(pairs_per_s(step, config.seconds))
    return speeds


def pairs_per_s(step: Callable[[], int], seconds: float) -> float:
    """Call `step`, which returns the number of its pairs, for at least `seconds`."""
    started, num_pairs = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds or not num_pairs:
        num_pairs += step()
    return num_pairs / elapsed


def make_learner(profile: Profile, mode: str, num_threads: int | None) -> Learner:
    """A policy with its optimiser, as a training worker has it."""
    encoder = Encoder.load(
        profile.encoder.model, precision=profile.encoder.precision, num_threads=num_threads
    )
    settings = profile.align.model_copy(update={"mode": mode, "pretrain_weight": 0.0})
    return Learner(encoder, settings, NUM_SCHEDULE_STEPS)


def make_pairs(num_queries: int, rows: int, columns: int, encoder: Encoder) -> RandomPairs:
    """A grid of random images per query; cell (i, j) beats (k, l) if i <= k, j <= l and they differ."""
    cells = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)
    is_better = (cells[:, None] <= cells[None]).all(-1) & ~np.eye(len(cells), dtype=bool)
    winner, loser = np.nonzero(is_better)
    offsets = np.arange(num_queries)[:, None] * len(cells)
    size = (num_queries * len(cells), 3, encoder.fit.height_px, encoder.fit.width_px)
    return RandomPairs(
        texts=[f"a {WORDS[index % len(WORDS)]} number {index}" for index in range(num_queries)],
        pixels=np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8),
        query=np.repeat(np.arange(num_queries), len(winner)),
        winner=(offsets + winner).ravel(),
        loser=(offsets + loser).ravel(),
    )


def make_batch(pairs: RandomPairs, reference: Encoder, mode: str) -> dict[str, Any]:
    """The pairs as one batch of Kallos, with the stored scores of the reference."""
    vectors, texts = reference.encode_images(pairs.pixels), reference.encode_texts(pairs.texts)
    return preference_batch(
        pairs.pixels if mode == "both" else vectors,
        pairs.texts,
        query=pairs.query,
        winner=pairs.winner,
        loser=pairs.loser,
        p_winner=np.ones(len(pairs.query), np.float32),
        reference_scores=vectors @ texts.T / reference.temperature,
    )


def our_step(learner: Learner, batch: dict[str, Any]) -> int:
    """One step of Kallos; returns its number of pairs."""
    learner.step([batch])
    return len(batch["pair_query"])


def random_batches(count: int, size: int) -> Iterator[np.ndarray]:
    """Endless batches of distinct random row numbers below `count`."""
    rng = np.random.default_rng(0)
    while True:
        yield rng.choice(count, min(size, count), replace=False)


def naive_step(policy: Learner, reference: Encoder, pairs: RandomPairs, rows: np.ndarray) -> int:
    """One step of the plain loop, which encodes each pair separately; returns its number of pairs."""
    settings = policy.settings
    tokens = policy.encoder.tokenize([pairs.texts[query] for query in pairs.query[rows]])
    images = [torch.from_numpy(pairs.pixels[side[rows]]) for side in (pairs.winner, pairs.loser)]
    policy_scores = naive_scores(policy.encoder, tokens, images, policy.temperature, settings.mode == "both")
    with torch.no_grad():
        reference_scores = naive_scores(reference, tokens, images, policy.temperature, False)
    losses, _, _ = dpo_loss(*policy_scores, *reference_scores, beta=settings.beta)
    losses.mean().backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters, settings.gradient_clip)
    policy.optimizer.step()
    policy.optimizer.zero_grad()
    return len(rows)


def naive_scores(
    encoder: Encoder, tokens: Tensor, images: list[Tensor], temperature: float, trains_images: bool
) -> tuple[Tensor, Tensor]:
    """Scores of winners and losers, [P] each; an image tower that is not trained builds no graph."""
    texts = encoder.text_features(tokens)
    with torch.set_grad_enabled(trains_images):
        winners, losers = (encoder.image_features(pixels) for pixels in images)
    return (texts * winners).sum(-1) / temperature, (texts * losers).sum(-1) / temperature
