"""The scenes of the mini encoder, from seed streams that no studio folder uses."""

from concurrent.futures import ProcessPoolExecutor

import cv2
import numpy as np

from lab.studio.draw import render
from lab.studio.latents import Latents, sample_latents

TRAIN_STREAM, HELD_OUT_STREAM = 7001, 7002
JPEG_QUALITY = 92
MAX_SHIFT_PX = 4


def scene(stream: int, index: int) -> Latents:
    """The scene of that index in a seed stream."""
    return sample_latents(np.random.default_rng((stream, index)))


def draw_scenes(stream: int, num: int, size_px: int) -> np.ndarray:
    """uint8 [num, size_px, size_px, 3], drawn on all cores."""
    with ProcessPoolExecutor() as pool:
        jobs = ((stream, index, size_px) for index in range(num))
        return np.stack(list(pool.map(_pixels, jobs, chunksize=64)))


def _pixels(job: tuple[int, int, int]) -> np.ndarray:
    """One scene as the encoder gets it: drawn, JPEG-compressed, resized; uint8 [size, size, 3]."""
    cv2.setNumThreads(1)
    stream, index, size_px = job
    image = render(scene(stream, index))[..., ::-1]
    _, file = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    decoded = cv2.imdecode(file, cv2.IMREAD_COLOR)
    assert decoded is not None
    return cv2.resize(decoded[..., ::-1], (size_px, size_px), interpolation=cv2.INTER_AREA)


def shifted(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The batch shifted by up to `MAX_SHIFT_PX`; uint8 [B, H, W, 3] -> the same shape.

    Mirroring would swap left and right, and colour changes would falsify the captions.
    """
    dx, dy = rng.integers(-MAX_SHIFT_PX, MAX_SHIFT_PX + 1, 2)
    margin = (MAX_SHIFT_PX, MAX_SHIFT_PX)
    padded = np.pad(pixels, ((0, 0), margin, margin, (0, 0)), mode="edge")
    size = pixels.shape[1]
    top, left = MAX_SHIFT_PX + dy, MAX_SHIFT_PX + dx
    return padded[:, top : top + size, left : left + size]
