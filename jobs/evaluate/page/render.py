"""report.html: one self-contained page of the figures and of the results that the systems return.

No scripts, no fonts, nothing from elsewhere: styles are inline and the images are data URIs.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from io import BytesIO

import jinja2
import numpy as np

from actors.images import UnusableImage, decode
from cluster.tables import Store
from jobs.evaluate.config import SYSTEMS, TOP_K, EvaluateConfig, PageOptions
from jobs.evaluate.figures import winrate
from jobs.evaluate.figures.registry import METRICS, SYSTEM_TITLES
from jobs.evaluate.inputs import draw
from jobs.evaluate.output_files import EvaluationTables

THUMB_QUALITY = 78


@dataclass(frozen=True)
class Cell:
    """One result: its image as a data URI ("" if it was deleted), and its marks (None if unknown)."""

    src: str
    caption: str
    accurate: bool | None
    aesthetics: float | None


@dataclass(frozen=True)
class Line:
    """One system's results for a query; `value` is their aesthetic@k, None without marks."""

    system: str
    label: str
    cells: list[Cell]
    value: float | None


@dataclass(frozen=True)
class Sheet:
    """Every system's results for a query; `change` is aesthetic@k, aligned minus baseline."""

    query: str
    rephrased: str
    lines: list[Line]
    change: float | None
    judged: str


def sheets(
    found: EvaluationTables, store: Store, options: PageOptions, seed: int
) -> tuple[list[Sheet], list[Sheet]]:
    """(queries drawn by seed, queries that lost the most) with their images."""
    rows = _by_query(found)
    change = {query: _change(of) for query, of in rows.items()}
    queries = list(rows)
    drawn = draw(queries, options.num_sheets, seed) if options.num_sheets else []
    lost = lost_most(np.array([change[query] or 0.0 for query in queries]), options.num_losses)
    losses = [queries[index] for index in lost]
    shown = {row["image_id"] for query in (*drawn, *losses) for of in rows[query].values() for row in of}
    images = {
        row["image_id"]: (thumbnail(row["preview"], options.thumb_px), row["caption"])
        for row in store.rows_of("images", ["image_id", "preview", "caption"], shown)
    }
    judged = _judged(found)
    made = {
        query: _sheet(query, rows[query], change[query], judged.get(query, ""), images)
        for query in (*drawn, *losses)
    }
    return [made[query] for query in drawn], [made[query] for query in losses]


def _by_query(found: EvaluationTables) -> dict[str, dict[str, list[dict]]]:
    """query -> system -> its results, best first."""
    rows: dict[str, dict[str, list[dict]]] = {}
    for row in found.answers.to_pylist():
        rows.setdefault(row["query"], {}).setdefault(row["system"], []).append(row)
    return rows


def _value(results: Sequence[Mapping]) -> float | None:
    """aesthetic@k of a list of results; None without marks."""
    if any(row["accurate"] is None for row in results):
        return None
    return sum(row["aesthetics"] or 0.0 for row in results if row["accurate"]) / TOP_K


def _change(of_systems: Mapping[str, Sequence[Mapping]]) -> float | None:
    """aesthetic@k of the aligned encoder minus the baseline's; None without marks."""
    after, before = (_value(of_systems.get(system, [])) for system in ("aligned", "baseline"))
    # Rounded, so that the same images in another order are a tie.
    return None if after is None or before is None else round(after - before, 6)


def lost_most(change: np.ndarray, num: int) -> list[int]:
    """Indices of the `num` queries with the lowest change below 0, worst first."""
    worst = np.argsort(change, kind="stable")[:num]
    return [int(index) for index in worst if change[index] < 0]


def thumbnail(preview: bytes, height_px: int) -> str:
    """A stored preview as a small JPEG data URI, at most `height_px` high and twice as wide.

    "" for a preview that cannot be read: one image less on the page, like one that was deleted.
    """
    try:
        image = decode(preview)
    except UnusableImage:
        return ""
    image.thumbnail((2 * height_px, height_px))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=THUMB_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _sheet(
    query: str, of_systems: Mapping[str, list[dict]], change: float | None, judged: str, images: Mapping
) -> Sheet:
    lines = [
        Line(
            system,
            SYSTEM_TITLES[system],
            [_cell(row, images) for row in of_systems[system]],
            _value(of_systems[system]),
        )
        for system in SYSTEMS
        if system in of_systems
    ]
    rephrased = next((row["rephrased"] for rows in of_systems.values() for row in rows), "")
    return Sheet(query, rephrased, lines, change, judged)


def _cell(row: Mapping, images: Mapping) -> Cell:
    src, caption = images.get(row["image_id"], ("", ""))
    return Cell(src, caption, row["accurate"], row["aesthetics"])


def _judged(found: EvaluationTables) -> dict[str, str]:
    """query -> the judge's preference between the aligned encoder's results and the baseline's."""
    if "ranker_first" not in found.rows.column_names:
        return {}
    preferred = {winrate.WIN: "aligned", winrate.LOSS: "baseline", winrate.TIE: "tie"}
    judged = zip(found.rows.to_pylist(), winrate.outcomes(found.margins("ranker")), strict=True)
    return {
        row["query"]: f"judge: {preferred[int(outcome)]}" if row["differs"] else "same results"
        for row, outcome in judged
        if row["challenger"] == "aligned"
    }


def headline(document: Mapping) -> list[dict]:
    """Rows of the table of figures: a metric, each system's figure, and the aligned encoder's differences."""
    rows = []
    for key, metric in METRICS.items():
        figures = {s: document["systems"][s][key] for s in SYSTEMS if s in document["systems"]}
        if any(figure["value"] is not None for figure in figures.values()):
            changes = [of.get(key) for of in differences(document).values()]
            rows.append(
                {"metric": metric, "figures": figures, "differences": changes, "strip": strip(figures)}
            )
    return rows


def differences(document: Mapping) -> dict[str, Mapping]:
    """Heading -> the differences of the aligned encoder that the table shows."""
    shown = {"aligned − baseline": "aligned_minus_baseline", "aligned − best null": "aligned_minus_best_null"}
    known = document["differences"]
    return {heading: known[name] for heading, name in shown.items() if name in known}


def strip(figures: Mapping[str, Mapping]) -> dict:
    """Positions of each system's interval and value on a common scale, in percent."""
    known = {system: figure for system, figure in figures.items() if figure["ci95"]}
    ends = [end for figure in known.values() for end in figure["ci95"]]
    low, high = min(ends), max(ends)
    margin = 0.08 * (high - low) or 0.01
    low, high = max(low - margin, 0.0), high + margin if high > 1 else min(high + margin, 1.0)
    marks = [
        (system, *(round(100 * (end - low) / (high - low), 2) for end in (first, figure["value"], last)))
        for system, figure in known.items()
        for first, last in [figure["ci95"]]
    ]
    return {"low": low, "high": high, "marks": marks}


def templates(*packages: str) -> jinja2.Environment:
    """Templates of those packages, with the shared ones of this package; data are escaped."""
    folders = [str(resources.files(package)) for package in ("jobs.evaluate.page", *packages)]
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def render(document: Mapping, shown: Sequence[Sheet], losses: Sequence[Sheet], config: EvaluateConfig) -> str:
    """The page."""
    template = templates().get_template("report.html.j2")
    return template.render(
        report=document,
        rows=headline(document),
        systems=[s for s in SYSTEMS if s in document["systems"]],
        differences=list(differences(document)),
        titles=SYSTEM_TITLES,
        sheets=shown,
        losses=losses,
        config=config,
        top_k=TOP_K,
    )
