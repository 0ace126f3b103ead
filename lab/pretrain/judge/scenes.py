"""Labelled studio scenes for the mini judge: drawn once, kept on disk, and augmented in every batch."""

import hashlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from actors import judge
from actors.images import decode, preview_jpeg
from lab.pretrain.judge.model import IMAGE_PX
from lab.studio.latents import Latents, sample_latents, true_aesthetics
from lab.studio.words import ASPECTS, COLOURS, COMPANIONS, COUNT_WORDS, LIGHTS, PLACES, SETTINGS, SUBJECTS

# What the auxiliary heads classify: the latent and its values.
CLASSES: dict[str, tuple] = {
    "subject": tuple(SUBJECTS),
    "colour": tuple(COLOURS),
    "setting": tuple(SETTINGS),
    "light": tuple(LIGHTS),
    "count": tuple(COUNT_WORDS),
    "companion": tuple(COMPANIONS),
    "place": tuple(PLACES),
}
NUM_PROBES = 32
MAX_SHIFT_PX = 6
MIRRORED = {"left": "right", "centre": "centre", "right": "left"}


@dataclass(frozen=True)
class LabelledScenes:
    """N drawn scenes with their labels.

    pixels: uint8 [N, IMAGE_PX, IMAGE_PX, 3]. aspects: float32 [N, len(ASPECTS)] in [0, 1].
    aesthetics: float32 [N] in [0, 1]. labels: int64 [N, len(CLASSES)].
    """

    latents: list[Latents]
    pixels: np.ndarray
    aspects: np.ndarray
    aesthetics: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.latents)


def make_scenes(num_scenes: int, seed: int, folder: Path, num_workers: int) -> LabelledScenes:
    """Draw the scenes, or read their pixels from `folder` if this version of the studio drew them before."""
    rng = np.random.default_rng(seed)
    latents = [sample_latents(rng) for _ in range(num_scenes)]
    path = folder / f"scenes_{seed}_{num_scenes}_{_studio_version()}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _draw_all(latents, path, num_workers)
    return label_scenes(latents, np.load(path, mmap_mode="r"))


def label_scenes(latents: list[Latents], pixels: np.ndarray) -> LabelledScenes:
    """The scenes with the labels that follow from their latents."""
    labels = [[CLASSES[name].index(getattr(scene, name)) for name in CLASSES] for scene in latents]
    aspects = [[scene.aspect(name) for name in ASPECTS] for scene in latents]
    return LabelledScenes(
        latents=latents,
        pixels=pixels,
        aspects=np.array(aspects, dtype=np.float32),
        aesthetics=np.array([true_aesthetics(scene) for scene in latents], dtype=np.float32),
        labels=np.array(labels, dtype=np.int64),
    )


def draw(latents: Latents) -> np.ndarray:
    """The scene as the judge sees it, from its JPEG preview: uint8 [IMAGE_PX, IMAGE_PX, 3]."""
    from lab.studio.draw import render

    preview = decode(preview_jpeg(Image.fromarray(render(latents))))
    return np.asarray(judge.shrink(preview, IMAGE_PX))


def _draw_all(latents: list[Latents], path: Path, num_workers: int) -> None:
    unfinished = path.with_suffix(".part.npy")
    pixels = np.lib.format.open_memmap(
        unfinished, mode="w+", dtype=np.uint8, shape=(len(latents), IMAGE_PX, IMAGE_PX, 3)
    )
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        for row, image in enumerate(pool.map(draw, latents, chunksize=64)):
            pixels[row] = image
    pixels.flush()
    unfinished.rename(path)


def _studio_version() -> str:
    """A hash that changes whenever the studio draws differently, so that old drawings are not reused."""
    rng = np.random.default_rng(0)
    probes = [draw(sample_latents(rng)).tobytes() for _ in range(NUM_PROBES)]
    return hashlib.sha256(b"".join(probes)).hexdigest()[:8]


def sample_images(
    rng: np.random.Generator, scenes: LabelledScenes, num_images: int, group: int = 4
) -> np.ndarray:
    """Rows of a batch, in groups of `group` scenes of one subject, so that there are hard pairs."""
    subjects = rng.integers(len(SUBJECTS), size=num_images // group)
    rows = [rng.choice(np.flatnonzero(scenes.labels[:, 0] == subject), group) for subject in subjects]
    return np.concatenate(rows)


def augmented(scenes: LabelledScenes, rows: np.ndarray, rng: np.random.Generator) -> LabelledScenes:
    """The scenes of those rows, shifted by up to `MAX_SHIFT_PX`, half of them mirrored, and relabelled.

    A small vision tower learns twice as much from scenes that never look the same twice.
    """
    latents, pixels = [scenes.latents[row] for row in rows], scenes.pixels[rows]
    margin = [(0, 0), (MAX_SHIFT_PX, MAX_SHIFT_PX), (MAX_SHIFT_PX, MAX_SHIFT_PX), (0, 0)]
    padded = np.pad(pixels, margin, mode="edge")
    for index, (top, left) in enumerate(rng.integers(0, 2 * MAX_SHIFT_PX + 1, (len(rows), 2))):
        pixels[index] = padded[index, top : top + IMAGE_PX, left : left + IMAGE_PX]
        if rng.random() < 0.5:
            pixels[index] = pixels[index, :, ::-1]
            latents[index] = replace(latents[index], place=MIRRORED[latents[index].place])
    return label_scenes(latents, pixels)
