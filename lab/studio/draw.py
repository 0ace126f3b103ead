"""Draws a scene: scenery and subject as SVG (rendered by resvg), then camera faults in pixels (OpenCV)."""

from dataclasses import dataclass

import cv2
import numpy as np
import resvg_py

from lab.studio.latents import Latents
from lab.studio.scenery import FRAME, HORIZON, LIGHTING, companion_svg, scenery_svg, shade
from lab.studio.subjects import DRAWINGS
from lab.studio.words import COLOURS, INDOOR_SETTINGS, SUBJECTS

_LITTER = (
    '<path d="M0 0 L2 -16 H13 L15 0Z" fill="#5d6a63"/><rect x="0" y="-19" width="15" height="4" fill="#434d48"/>',
    '<path d="M0 0 Q2 -12 9 -11 Q17 -13 18 0Z" fill="#33353b"/><path d="M7 -11 l3 -5 3 5" fill="#33353b"/>',
    '<rect x="0" y="-9" width="7" height="9" fill="#c8cf3d"/><rect x="9" y="-6" width="10" height="6" fill="#d04e8f"/>',
    '<path d="M2 0 L6 -22 L10 0Z" fill="#ee6a24"/><rect x="3" y="-11" width="6" height="3" fill="#f6f6f6"/>',
    '<path d="M0 0 V-34 H3 V0 M-6 -33 H9 V-27 H-6Z" fill="#7b7f86"/>',
    '<rect x="0" y="-12" width="18" height="12" fill="#a98858"/><path d="M0 -12 l4 -5 h18 l-4 5" fill="#c9ab7a"/>',
)


@dataclass(frozen=True)
class _Pose:
    x: float
    y: float
    size: float


def _subject_pose(latents: Latents, rng: np.random.Generator) -> _Pose:
    """Position and size of the subject. A good composition puts it on a third or in the middle, and large.

    In a bad composition it is cut off by the frame, or too small.
    """
    fault = 1.0 - latents.composition
    x = {"left": FRAME / 3, "centre": FRAME / 2, "right": 2 * FRAME / 3}[latents.place]
    outward = {"left": -1.0, "centre": float(rng.choice([-0.5, 0.5])), "right": 1.0}[latents.place]
    scale = 1.0 + fault * (0.65 if rng.random() < 0.5 else -0.5)
    base = 84.0 if SUBJECTS[latents.subject].airborne else 142.0
    if latents.setting == "sea" and not SUBJECTS[latents.subject].airborne:
        base = 128.0
    return _Pose(x + outward * 34 * fault, base + rng.uniform(-4, 4) + 16 * fault * (scale > 1), 66 * scale)


def _shades(drawing: str, latents: Latents) -> str:
    colour = COLOURS[latents.colour]
    for mark, factor in (("@c", 1.0), ("@l", 1.18), ("@d", 0.72)):
        drawing = drawing.replace(mark, shade(colour, "midday", factor))
    return drawing


def _subjects_svg(latents: Latents, pose: _Pose) -> str:
    """One to three copies of the subject, the others smaller and further back, each with a soft shadow."""
    drawing = _shades(DRAWINGS[latents.subject], latents)
    copies = [(0.0, 0.0, 1.0), (0.62, -7.0, 0.72), (-0.6, -5.0, 0.8)][: latents.count]
    grounded = not SUBJECTS[latents.subject].airborne
    parts = []
    for dx, dy, k in reversed(copies):
        size = pose.size * k
        x, y = pose.x + dx * pose.size * 1.1 - size / 2, pose.y + dy
        if grounded:
            parts.append(
                f'<ellipse cx="{x + size / 2:.1f}" cy="{y:.1f}" rx="{size * 0.5:.1f}" ry="{size * 0.075:.1f}" fill="#000" opacity=".32"/>'
            )
        parts.append(
            f'<g transform="translate({x:.1f} {y - size:.1f}) scale({size / 100:.4f})">{drawing}</g>'
        )
    return "".join(parts)


def _litter_svg(latents: Latents, rng: np.random.Generator) -> str:
    num = round(6 * (1.0 - latents.clutter))
    spots = zip(
        rng.uniform(2, 145, num),
        rng.uniform(118, 156, num),
        rng.integers(len(_LITTER), size=num),
        strict=True,
    )
    return "".join(
        f'<g transform="translate({x:.0f} {y:.0f}) scale(1.15)">{_LITTER[i]}</g>' for x, y, i in spots
    )


def _rasterise(body: str, size_px: int, tilt_deg: float) -> np.ndarray:
    """SVG body -> float32 [H, W, 4] BGRA in [0, 1], with straight alpha."""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size_px}" height="{size_px}" viewBox="0 0 {FRAME} {FRAME}">'
        f'<g transform="rotate({tilt_deg:.2f} {FRAME / 2} {FRAME / 2})">{body}</g></svg>'
    )
    png = np.frombuffer(bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)), np.uint8)
    image = cv2.imdecode(png, cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image.astype(np.float32) / 255.0


def _lit(layer: np.ndarray, latents: Latents) -> np.ndarray:
    """Tint the layer with the light, and make it brighter on the side of the light."""
    tint = np.array(LIGHTING[latents.light].tint[::-1], np.float32)
    fall = np.linspace(1.15, 0.85, layer.shape[1], dtype=np.float32)[None, :, None]
    layer[..., :3] = (
        layer[..., :3] * (0.35 + 0.65 * tint) * (fall if latents.place == "right" else fall[:, ::-1])
    )
    return layer


def _over(layer: np.ndarray, image: np.ndarray) -> np.ndarray:
    alpha = layer[..., 3:]
    return layer[..., :3] * alpha + image * (1.0 - alpha)


def _blur(image: np.ndarray, sigma_px: float) -> np.ndarray:
    return image if sigma_px < 0.2 else cv2.GaussianBlur(image, (0, 0), sigma_px)


def _grade(image: np.ndarray, latents: Latents, rng: np.random.Generator) -> np.ndarray:
    """Apply palette (saturation, contrast, colour cast) and exposure."""
    fault = 1.0 - latents.palette
    grey = image.mean(axis=2, keepdims=True)
    image = grey + (image - grey) * (1.25 - 0.95 * fault)
    image = 0.5 + (image - 0.5) * (1.08 - 0.35 * fault)
    cast = np.array([-0.05, 0.05, -0.01] if rng.random() < 0.5 else [0.01, -0.02, 0.06], np.float32)
    image = image + cast * 1.4 * fault
    stops = (1.0 - latents.exposure) * (0.62 if rng.random() < 0.5 else -0.9)
    return image * 2.0**stops


def _with_mist(image: np.ndarray, latents: Latents, size_px: int) -> np.ndarray:
    """Add mist, which is densest at the horizon, to an outdoor scene whose light is mist."""
    if latents.light != "mist" or latents.setting in INDOOR_SETTINGS:
        return image
    rows = np.arange(size_px, dtype=np.float32) / size_px * FRAME
    veil = 0.55 * np.exp(-(((rows - HORIZON) / 34.0) ** 2))[:, None, None]
    return image * (1.0 - veil) + 0.93 * veil


def render(latents: Latents, size_px: int = FRAME) -> np.ndarray:
    """Draw a scene: uint8 [size_px, size_px, 3], RGB. The same latents and size give the same pixels."""
    rng = np.random.default_rng(latents.scenery_seed)
    pose = _subject_pose(latents, rng)
    tilt_deg = 13.0 * (1.0 - latents.level) * float(rng.choice([-1.0, 1.0]))
    scale = size_px / FRAME
    scenery = scenery_svg(latents.setting, latents.light, rng)
    aloft = latents.companion in ("birds", "clouds")
    beside = (pose.x + 80) % FRAME
    companion = companion_svg(latents.companion, beside * 0.8, 34.0 if aloft else 126.0, 1.0)
    litter = _litter_svg(latents, rng)
    blur_px = 2.5 * (1.0 - latents.focus) ** 1.3 * scale
    back = _rasterise(scenery + companion, size_px, tilt_deg)[..., :3]
    back = _with_mist(_blur(back, 0.9 * latents.focus * scale), latents, size_px)
    front = _lit(_rasterise(litter + _subjects_svg(latents, pose), size_px, tilt_deg), latents)
    image = _blur(_over(front, back), blur_px)
    image = _grade(image, latents, rng)
    image += rng.normal(0.0, 1.0, image.shape).astype(np.float32) * 0.06 * (1.0 - latents.grain)
    return (np.clip(image, 0.0, 1.0)[..., ::-1] * 255.0 + 0.5).astype(np.uint8)
