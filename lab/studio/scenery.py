"""The settings behind the studio's subjects, as SVG in a frame of 160 x 160 units, coloured by the light."""

from dataclasses import dataclass

import numpy as np

FRAME = 160
HORIZON = 96
_BOTTOM = 205  # below the frame, so that a tilted image still shows ground


@dataclass(frozen=True)
class Light:
    """The sky of a light, from zenith to horizon, its tint of everything in the scene, and its glow."""

    sky: tuple[str, str, str]
    tint: tuple[float, float, float]
    glow: str


LIGHTING: dict[str, Light] = {
    "sunset": Light(("#3b4a86", "#f2855a", "#ffd98a"), (1.06, 0.84, 0.66), "#fff0b8"),
    "dusk": Light(("#22285e", "#7a5797", "#eda3a4"), (0.72, 0.68, 0.92), "#ffd3c4"),
    "mist": Light(("#c3d2d8", "#dbe4e4", "#eeeee6"), (0.92, 0.97, 0.98), "#fffdf2"),
    "night": Light(("#060a1c", "#101c42", "#26386a"), (0.46, 0.52, 0.76), "#f3f1da"),
    "midday": Light(("#3f97e6", "#86c3f4", "#cfeaff"), (1.05, 1.05, 1.0), "#ffffff"),
    "overcast": Light(("#8f979d", "#a5abaf", "#bbbfc0"), (0.80, 0.82, 0.84), "#c9cccc"),
}


def shade(colour: str, light: str, factor: float = 1.0) -> str:
    """A colour (#rrggbb) under the light, times `factor`."""
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    values = (
        min(255, max(0, round(c * t * factor))) for c, t in zip(channels, LIGHTING[light].tint, strict=True)
    )
    return "#{:02x}{:02x}{:02x}".format(*values)


def _gradient(name: str, *stops: str) -> str:
    step = 1.0 / (len(stops) - 1)
    marks = "".join(f'<stop offset="{i * step:.2f}" stop-color="{stop}"/>' for i, stop in enumerate(stops))
    return f'<linearGradient id="{name}" x1="0" y1="0" x2="0" y2="1">{marks}</linearGradient>'


def _band(top: float, fill: str, bottom: float = _BOTTOM) -> str:
    return f'<rect x="-40" y="{top}" width="240" height="{bottom - top}" fill="{fill}"/>'


def _hill(rng: np.random.Generator, level: float, fill: str) -> str:
    a, b = rng.uniform(-14, 14, 2)
    return (
        f'<path d="M-45 {_BOTTOM} V{level + a:.0f} Q 30 {level - 16 + b:.0f} 80 {level:.0f} '
        f'T 205 {level - a:.0f} V{_BOTTOM}Z" fill="{fill}"/>'
    )


def _dots(
    rng: np.random.Generator, num: int, y: tuple[float, float], radius: float, fills: tuple[str, ...]
) -> str:
    marks = zip(
        rng.uniform(-30, 190, num), rng.uniform(*y, num), rng.integers(len(fills), size=num), strict=True
    )
    return "".join(f'<circle cx="{x:.0f}" cy="{v:.0f}" r="{radius}" fill="{fills[i]}"/>' for x, v, i in marks)


def _sky(rng: np.random.Generator, light: str) -> str:
    parts = [f"<defs>{_gradient('sky', *LIGHTING[light].sky)}</defs>", _band(-40, "url(#sky)", 132)]
    if light == "night":
        parts.append(_dots(rng, 26, (-10, 70), 0.7, ("#ffffff", "#cfd8ff")))
    if light in ("sunset", "night", "midday"):
        x = rng.uniform(15, 145)
        y, radius = {"sunset": (84, 13), "night": (rng.uniform(18, 40), 8), "midday": (16, 9)}[light]
        glow = LIGHTING[light].glow
        parts += [
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="{radius * k}" fill="{glow}" opacity="{o}"/>'
            for k, o in ((3.2, 0.14), (2.0, 0.22), (1.0, 0.95))
        ]
    if light == "overcast":
        clouds = zip(rng.uniform(-10, 170, 6), rng.uniform(5, 70, 6), strict=True)
        parts += [
            f'<ellipse cx="{x:.0f}" cy="{y:.0f}" rx="46" ry="10" fill="#d5d8d8" opacity=".35"/>'
            for x, y in clouds
        ]
    return "".join(parts)


def _sea(rng: np.random.Generator, light: str) -> str:
    sky = LIGHTING[light].sky
    waves = zip(
        rng.uniform(-20, 170, 16), np.linspace(HORIZON + 4, 157, 16), rng.uniform(8, 34, 16), strict=True
    )
    lines = "".join(
        f'<path d="M{x:.0f} {y:.0f} q {w / 4:.0f} -2.5 {w / 2:.0f} 0 t {w / 2:.0f} 0" stroke="{sky[2]}" '
        f'stroke-width="1.3" fill="none" opacity=".5"/>'
        for x, y, w in waves
    )
    water = _gradient("water", shade("#8fc0d8", light), shade("#3a86b0", light), shade("#17506f", light))
    return f"<defs>{water}</defs>{_band(HORIZON, 'url(#water)')}{lines}"


def _beach(rng: np.random.Generator, light: str) -> str:
    sand = _gradient("sand", shade("#f3e0b0", light), shade("#d9b878", light))
    surf = '<path d="M-40 112 Q 20 102 70 110 T 200 106" stroke="#ffffff" stroke-width="3" fill="none" opacity=".75"/>'
    shore = f'<path d="M-40 {_BOTTOM} V113 Q 20 103 70 111 T 200 107 V{_BOTTOM}Z" fill="url(#sand)"/>'
    shells = _dots(rng, 14, (122, 158), 1.0, (shade("#b98d58", light), shade("#fff3df", light)))
    return f"<defs>{sand}</defs>{_band(HORIZON, shade('#3d9fb8', light))}{shore}{surf}{shells}"


def _desert(rng: np.random.Generator, light: str) -> str:
    far, near = shade("#dd9f5c", light), shade("#edbd78", light)
    crest = rng.uniform(20, 140)
    dune = (
        f'<path d="M-45 {_BOTTOM} V120 Q {crest - 40:.0f} 112 {crest:.0f} 98 Q {crest + 20:.0f} 120 205 132 V{_BOTTOM}Z" fill="{near}"/>'
        f'<path d="M{crest:.0f} 98 Q {crest + 20:.0f} 120 205 132 V{_BOTTOM} H{crest + 30:.0f} Q {crest + 14:.0f} 126 {crest:.0f} 98Z" '
        f'fill="{shade("#b9773f", light)}"/>'
    )
    return _hill(rng, HORIZON, far) + dune + _hill(rng, 140, shade("#f2cb8e", light))


def _conifer(x: float, base: float, height: float, fill: str) -> str:
    w = height * 0.34
    tiers = "".join(
        f"M{x:.0f} {base - height * top:.0f} L{x - w * k:.0f} {base - height * low:.0f} H{x + w * k:.0f}Z"
        for top, low, k in ((1.0, 0.55, 0.6), (0.75, 0.3, 0.8), (0.5, 0.05, 1.0))
    )
    return f'<path d="{tiers}" fill="{fill}"/>'


def _conifers(
    rng: np.random.Generator, num: int, base: float, heights: tuple[float, float], fill: str
) -> str:
    trees = zip(np.linspace(-30, 190, num) + rng.uniform(-6, 6, num), rng.uniform(*heights, num), strict=True)
    return "".join(_conifer(x, base, height, fill) for x, height in trees)


def _forest(rng: np.random.Generator, light: str) -> str:
    return (
        _conifers(rng, 13, 104, (60, 86), shade("#7fa08c", light))
        + _conifers(rng, 10, 112, (62, 98), shade("#3f6b50", light))
        + _band(110, shade("#4d5d33", light))
        + _hill(rng, 124, shade("#66773c", light))
        + _dots(rng, 26, (122, 159), 1.4, (shade("#8fa04c", light), shade("#54431f", light)))
    )


def _mountains(rng: np.random.Generator, light: str) -> str:
    peaks = "".join(
        f'<path d="M{x - 48:.0f} 102 L{x:.0f} {y:.0f} L{x + 48:.0f} 102Z" fill="{shade("#76809a", light)}"/>'
        f'<path d="M{x:.0f} {y:.0f} L{x + 48:.0f} 102 H{x + 8:.0f}Z" fill="{shade("#566079", light)}"/>'
        f'<path d="M{x:.0f} {y:.0f} l-13 16 6 -3 6 6 5 -7 9 5Z" fill="{shade("#f4f7fb", light)}"/>'
        for x, y in zip((10, 66, 122, 170), rng.uniform(30, 64, 4), strict=True)
    )
    return peaks + _hill(rng, 102, shade("#6f8f68", light)) + _hill(rng, 122, shade("#7da758", light))


def _meadow(rng: np.random.Generator, light: str) -> str:
    flowers = tuple(shade(c, light) for c in ("#ffffff", "#ffd84d", "#f2779b", "#b78be0"))
    return (
        _hill(rng, 90, shade("#8fb98a", light))
        + _hill(rng, 102, shade("#79b45c", light))
        + _hill(rng, 124, shade("#5f9e3f", light))
        + _dots(rng, 40, (116, 159), 1.5, flowers)
    )


def _building(rng: np.random.Generator, x: float, width: float, height: float, light: str) -> str:
    lit = "#ffdf8c" if light in ("night", "dusk") else shade("#dcebf5", light)
    wall = shade(("#8b8f9c", "#a58b7c", "#6f7f92", "#b0a79c")[rng.integers(4)], light)
    panes = "".join(
        f'<rect x="{x + dx:.0f}" y="{104 - height + dy:.0f}" width="3.4" height="4.6" fill="{lit}"/>'
        for dx in np.arange(4, width - 5, 8)
        for dy in np.arange(5, height - 6, 11)
        if rng.random() < 0.7
    )
    return f'<rect x="{x:.0f}" y="{104 - height:.0f}" width="{width:.0f}" height="{height:.0f}" fill="{wall}"/>{panes}'


def _city(rng: np.random.Generator, light: str) -> str:
    blocks = "".join(
        _building(rng, x, 26, h, light)
        for x, h in zip(range(-28, 190, 27), rng.uniform(34, 86, 9), strict=False)
    )
    marks = "".join(
        f'<rect x="{x}" y="134" width="18" height="2.4" fill="#e9e4d4" opacity=".8"/>'
        for x in range(-30, 190, 34)
    )
    pavement = _band(102, shade("#b3aca3", light), 114)
    return blocks + pavement + _band(112, shade("#5b5d63", light)) + marks


def _snow(rng: np.random.Generator, light: str) -> str:
    flakes = _dots(rng, 34, (0, 158), 1.2, ("#ffffff",))
    return (
        _hill(rng, 92, shade("#c8d6e6", light))
        + _conifers(rng, 7, 104, (22, 46), shade("#547467", light))
        + _hill(rng, 106, shade("#e6eef6", light))
        + _hill(rng, 130, shade("#f8fbff", light))
        + flakes
    )


def _room(rng: np.random.Generator, light: str) -> str:
    wall = shade(("#e6d5bf", "#c7d3c4", "#d6c4cf", "#c3cfdb")[rng.integers(4)], light, 0.97)
    x = rng.choice([12, 100])
    window = (
        f'<rect x="{x}" y="18" width="48" height="56" fill="#f6f2ea"/><rect x="{x + 4}" y="22" width="40" height="48" fill="url(#sky)"/>'
        f'<path d="M{x + 24} 20 V72 M{x + 2} 46 H{x + 46}" stroke="#f6f2ea" stroke-width="3"/>'
    )
    boards = "".join(
        f'<path d="M-40 {y} H200" stroke="{shade("#7d532f", light)}" stroke-width="1"/>'
        for y in (118, 128, 141)
    )
    rug = f'<ellipse cx="80" cy="140" rx="66" ry="13" fill="{shade("#a8504a", light)}" opacity=".8"/>'
    return (
        _band(-40, wall)
        + window
        + _band(108, shade("#a87444", light))
        + boards
        + _band(105, "#f2ece2", 109)
        + rug
    )


def _table(rng: np.random.Generator, light: str) -> str:
    back = ("#55617a", "#6d5a58", "#5a6b5c", "#80735f")[rng.integers(4)]
    wall = _gradient("wall", shade(back, light, 0.75), shade(back, light, 1.5))
    wood = _gradient("wood", shade("#b98352", light), shade("#7c4f2c", light))
    grain = "".join(
        f'<path d="M-40 {y:.0f} q 60 -4 120 0 t 120 0" stroke="{shade("#5c3a20", light)}" stroke-width=".8" fill="none" opacity=".6"/>'
        for y in rng.uniform(118, 158, 6)
    )
    cloth = f'<circle cx="{rng.uniform(30, 130):.0f}" cy="62" r="44" fill="{LIGHTING[light].glow}" opacity=".16"/>'
    return f"<defs>{wall}{wood}</defs>{_band(-40, 'url(#wall)', 116)}{cloth}{_band(114, 'url(#wood)')}{grain}"


_SETTINGS = {
    "sea": _sea,
    "beach": _beach,
    "desert": _desert,
    "forest": _forest,
    "mountains": _mountains,
    "meadow": _meadow,
    "city": _city,
    "snow": _snow,
    "room": _room,
    "table": _table,
}

_COMPANIONS = {
    "none": "",
    "birds": '<path d="M0 0 q5 -6 9 0 q4 -6 9 0 M20 -9 q4 -5 7 0 q3 -5 7 0 M24 6 q4 -5 7 0 q3 -5 7 0" stroke="#2a2a33" stroke-width="2" fill="none"/>',
    "clouds": '<g fill="#ffffff" opacity=".92"><ellipse cx="8" cy="4" rx="14" ry="6"/><circle cx="4" cy="0" r="7"/><circle cx="14" cy="-2" r="9"/></g>',
    "rocks": '<path d="M0 0 L4 -11 L13 -13 L20 -3 L21 0Z" fill="#8b8a8c"/><path d="M16 0 L20 -8 L29 -7 L32 0Z" fill="#6c6b70"/>',
    "fence": '<path d="M0 0 V-17 M9 0 V-17 M18 0 V-17 M27 0 V-17 M36 0 V-17 M-3 -6 H39 M-3 -13 H39" stroke="#8a6239" stroke-width="3" fill="none"/>',
    "flowers": '<path d="M3 0 V-10 M12 0 V-13 M21 0 V-9" stroke="#3d7d3c" stroke-width="2"/><g fill="#fff4f7" stroke="#e26d95" stroke-width="2"><circle cx="3" cy="-12" r="4"/><circle cx="12" cy="-15" r="4"/><circle cx="21" cy="-11" r="4"/></g>',
    "ball": '<circle cx="9" cy="-9" r="9" fill="#ffffff"/><path d="M2 -15 Q9 -9 2 -3 A9 9 0 0 1 2 -15 M16 -15 Q9 -9 16 -3 A9 9 0 0 0 16 -15" fill="#d8443f"/><path d="M7 -18 H11 V0 H7Z" fill="#3b6fc0"/>',
    "crate": '<path d="M0 0 V-18 H22 V0Z" fill="#b5824a"/><path d="M0 0 V-18 H22 V0Z M0 -6 H22 M0 -12 H22 M0 0 L22 -18" fill="none" stroke="#75502a" stroke-width="1.6"/>',
}  # fmt: skip


def companion_svg(companion: str, x: float, y: float, size: float = 1.0) -> str:
    """The companion of a scene at (x, y) in frame units."""
    return f'<g transform="translate({x:.1f} {y:.1f}) scale({size:.2f})">{_COMPANIONS[companion]}</g>'


def scenery_svg(setting: str, light: str, rng: np.random.Generator) -> str:
    """The sky and the setting of a scene, as the content of an SVG of `FRAME` units."""
    return _sky(rng, light) + _SETTINGS[setting](rng, light)
