"""Measures a step of alignment against a naive DPO loop, in turns, in one process with the same threads.

Ours encodes each distinct image and query of a batch once and gathers the pairs' scores; the reference's
scores are read, not computed. The naive loop encodes query, winner and loser of every pair, with the policy
and with the reference. Same model, same optimiser, random pixels, no contrastive loss on either side.

    kallos bench align --profile mini
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from actors.encoder import Encoder
from cluster import command
from cluster.profile import Align, Profile
from jobs.align.learner import Learner
from jobs.align.objectives import dpo_loss
from lab.bench.align.config import BenchAlignConfig
from lab.bench.report import comparison
from lab.machine import machine

WORDS = ("sailboat", "teapot", "lighthouse", "guitar", "forest", "bridge", "lantern", "violin")


@dataclass(frozen=True)
class Pairs:
    """The partial order of some queries' images: which image of which query beats which."""

    texts: list[str]
    pixels: np.ndarray  # uint8 [Q * N, 3, H, W], N images a query
    query: np.ndarray  # int64 [P]
    winner: np.ndarray  # int64 [P], rows of `pixels`
    loser: np.ndarray


def run(config: BenchAlignConfig) -> dict[str, Any]:
    """Both modes, both sides; ratios of pairs per second."""
    profile, _ = command.settings(config)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    ratios, figures = (
        {},
        {"num_threads": torch.get_num_threads(), "u": profile.label.rows, "v": profile.label.columns},
    )
    for mode in ("both", "text"):
        speeds = measure(config, profile, mode)
        ratios[f"align_pairs_over_naive_{mode}"] = comparison(speeds["ours"], speeds["naive"])
        for side, values in speeds.items():
            figures[f"{side}_pairs_per_s_{mode}"] = float(np.median(values))
    return {"bench": "align", "ratios": ratios, "figures": figures, "machine": machine()}


def measure(config: BenchAlignConfig, profile: Profile, mode: str) -> dict[str, list[float]]:
    """Pairs per second of both sides, one figure a turn."""
    subject = make_learner(profile, mode, config.num_threads)
    pairs = make_pairs(config.num_queries, profile.label.rows, profile.label.columns, subject.encoder)
    reference = Encoder.load(profile.encoder.model, precision=profile.encoder.precision)
    batch = make_batch(pairs, reference, subject.temperature, mode)
    naive = make_learner(profile, mode, config.num_threads)
    naive_batches = endless(len(pairs.query), config.pairs_per_batch)
    sides: dict[str, Callable[[], int]] = {
        "ours": lambda: len(subject.step([batch])) and len(pairs.query),
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
    """Call `step`, which gives the number of its pairs, for at least that long."""
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
    return Learner(encoder, settings, num_steps=1000)


def make_pairs(num_queries: int, rows: int, columns: int, encoder: Encoder) -> Pairs:
    """A grid of random pixels per query; cell (i, j) beats (k, l) when i <= k, j <= l and they differ."""
    cells = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)
    before = (cells[:, None] <= cells[None]).all(-1) & ~np.eye(len(cells), dtype=bool)
    winner, loser = np.nonzero(before)
    offsets = np.arange(num_queries)[:, None] * len(cells)
    size = (num_queries * len(cells), 3, encoder.fit.height_px, encoder.fit.width_px)
    return Pairs(
        texts=[f"a {WORDS[place % len(WORDS)]} number {place}" for place in range(num_queries)],
        pixels=np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8),
        query=np.repeat(np.arange(num_queries), len(winner)),
        winner=(offsets + winner).ravel(),
        loser=(offsets + loser).ravel(),
    )


def make_batch(pairs: Pairs, reference: Encoder, temperature: float, mode: str) -> dict[str, Any]:
    """A batch of ours, as the feeding tasks make it; the reference's scores are stored ones."""
    vectors, texts = reference.encode_images(pairs.pixels), reference.encode_texts(pairs.texts)
    scores = vectors @ texts.T / temperature
    count = len(pairs.query)
    nothing = np.zeros(0, np.int64)
    return {
        "images": pairs.pixels if mode == "both" else vectors,
        "texts": pairs.texts,
        "pair_query": pairs.query,
        "pair_winner": pairs.winner,
        "pair_loser": pairs.loser,
        "p_winner": np.ones(count, np.float32),
        "winner_reference": scores[pairs.winner, pairs.query],
        "loser_reference": scores[pairs.loser, pairs.query],
        "pair_weight": np.full(count, 1 / count, np.float32),
        "caption_image": nothing,
        "caption_text": nothing,
    }


def endless(count: int, size: int) -> Iterator[np.ndarray]:
    """Shuffled batches of row numbers below `count`, without end."""
    rng = np.random.default_rng(0)
    while True:
        yield rng.choice(count, min(size, count), replace=False)


def naive_step(policy: Learner, reference: Encoder, pairs: Pairs, rows: np.ndarray) -> int:
    """One step on those pairs, each encoded for itself by policy and reference; returns their number."""
    settings: Align = policy.settings
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
    encoder: Encoder, tokens: torch.Tensor, images: list[torch.Tensor], temperature: float, learns: bool
) -> list[torch.Tensor]:
    """Scores of chosen and rejected images, [P] each; an image tower that does not learn keeps no graph."""
    texts = encoder.text_features(tokens)
    scores = []
    for pixels in images:
        with torch.set_grad_enabled(learns):
            features = encoder.image_features(pixels)
        scores.append((texts * features).sum(-1) / temperature)
    return scores
