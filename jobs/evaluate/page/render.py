"""report.html: one self-contained page of the figures and of what the systems answer, before and after.

No scripts, no fonts, nothing from elsewhere: styles are inline and the images are data URIs.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from io import BytesIO

import jinja2
import numpy as np

from actors.images import decode
from cluster.tables import Store
from jobs.evaluate.config import DIVERSITY_K, SYSTEMS, TOP_K, EvaluateConfig
from jobs.evaluate.figures import winrate
from jobs.evaluate.inputs import draw
from jobs.evaluate.output_files import Saved
from jobs.evaluate.systems import rows_of

LABELS = {"baseline": "before", "teacher": "teacher", "aligned": "after", "text": "after (text tower)"}
MEANINGS = {
    "recall@1": "the caption's own image comes first",
    "recall@5": "… is among the first five",
    "recall@10": "… is among the first ten",
    f"precision@{TOP_K}": "share of the top five that shows what was asked",
    f"aesthetic@{TOP_K}": "mean true aesthetics of the top five, inaccurate images count 0",
    "hpir_accuracy": "agrees with people on which group is more accurate",
    "hpir_aesthetic": "agrees with people on which group is more beautiful",
    "zero_shot": "share of images that are nearest to the name of their subject",
    f"vendi@{DIVERSITY_K}": f"how many different images the first {DIVERSITY_K} seem to be",
}
THUMB_QUALITY = 78


@dataclass(frozen=True)
class Cell:
    """One result: its image as a data URI, "" if it was deleted, and what is known of it (None = nothing)."""

    src: str
    caption: str
    accurate: bool | None
    aesthetics: float | None


@dataclass(frozen=True)
class Line:
    """One system's results for a query; `value` is their aesthetic@k, None if nobody marked them."""

    system: str
    label: str
    cells: list[Cell]
    value: float | None


@dataclass(frozen=True)
class Sheet:
    """What every system answers to one query; `change` is aesthetic@k after minus before."""

    query: str
    rephrased: str
    lines: list[Line]
    change: float | None
    verdict: str


def sheets(
    document: Mapping, found: Saved, store: Store, config: EvaluateConfig
) -> tuple[list[Sheet], list[Sheet]]:
    """(queries drawn by seed, queries that lost the most) with their pictures."""
    rows = _by_query(found)
    change = {query: _change(of) for query, of in rows.items()}
    drawn = draw(list(rows), config.num_sheets, config.seed) if config.num_sheets else []
    queries = list(rows)
    losses = [queries[i] for i in lost_most(np.array([change[q] or 0.0 for q in queries]), config.num_losses)]
    shown = {row["image_id"] for query in (*drawn, *losses) for of in rows[query].values() for row in of}
    pictures = {
        row["image_id"]: (thumbnail(row["preview"], config.thumb_px), row["caption"])
        for row in rows_of(store, "images", ["image_id", "preview", "caption"], shown)
    }
    verdicts = _verdicts(found)
    made = {
        query: _sheet(query, rows[query], change[query], verdicts.get(query, ""), pictures)
        for query in (*drawn, *losses)
    }
    return [made[query] for query in drawn], [made[query] for query in losses]


def _by_query(found: Saved) -> dict[str, dict[str, list[dict]]]:
    """query -> system -> its results, best first."""
    rows: dict[str, dict[str, list[dict]]] = {}
    for row in found.answers.to_pylist():
        rows.setdefault(row["query"], {}).setdefault(row["system"], []).append(row)
    return rows


def _value(results: Sequence[Mapping]) -> float | None:
    """aesthetic@k of a row; None where nobody marked it."""
    if any(row["accurate"] is None for row in results):
        return None
    return sum(row["aesthetics"] for row in results if row["accurate"]) / TOP_K


def _change(of_systems: Mapping[str, Sequence[Mapping]]) -> float | None:
    """What a query gained in aesthetic@k: by truth, by the judge, None if nobody marked."""
    values = [_value(of_systems.get(system, [])) for system in ("aligned", "baseline")]
    # Rounded, so that the same images in another order are a tie.
    return None if None in values else round(values[0] - values[1], 6)


def lost_most(change: np.ndarray, num: int) -> list[int]:
    """Indices of the `num` queries with the lowest change below 0, worst first."""
    worst = np.argsort(change, kind="stable")[:num]
    return [int(i) for i in worst if change[i] < 0]


def thumbnail(preview: bytes, height_px: int) -> str:
    """A stored preview as a small JPEG data URI, at most `height_px` high and twice as wide."""
    image = decode(preview)
    image.thumbnail((2 * height_px, height_px))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=THUMB_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _sheet(
    query: str, of_systems: Mapping[str, list[dict]], change: float | None, verdict: str, pictures: Mapping
) -> Sheet:
    lines = [
        Line(system, LABELS[system], [_cell(row, pictures) for row in of_systems[system]],
             _value(of_systems[system]))
        for system in SYSTEMS
        if system in of_systems
    ]  # fmt: skip
    rephrased = next((row["rephrased"] for rows in of_systems.values() for row in rows), "")
    return Sheet(query, rephrased, lines, change, verdict)


def _cell(row: Mapping, pictures: Mapping) -> Cell:
    return Cell(*pictures.get(row["image_id"], ("", "")), row["accurate"], row["aesthetics"])


def _verdicts(found: Saved) -> dict[str, str]:
    """What the judge said of each query's rows, after against before."""
    words = {winrate.WIN: "prefers after", winrate.LOSS: "prefers before", winrate.TIE: "sees a tie"}
    if "ranker_first" not in found.rows.column_names:
        return {}
    said = {}
    for row, outcome in zip(found.rows.to_pylist(), winrate.outcomes(found.margins("ranker")), strict=True):
        if row["challenger"] == "aligned":
            said[row["query"]] = f"the judge {words[int(outcome)]}" if row["differs"] else "same results"
    return said


def headline(document: Mapping) -> list[dict]:
    """Rows of the table: a metric, what it means, each system's value and interval, and the difference."""
    rows = []
    for name, meaning in MEANINGS.items():
        values = {s: document["metrics"][s][name] for s in document["metrics"]}
        if any(value is not None for value in values.values()):
            intervals = {s: document["ci95"][s][name] for s in values}
            difference = document["difference"]["aligned_minus_baseline"].get(name)
            rows.append(
                {
                    "name": name,
                    "meaning": meaning,
                    "cells": [(s, values[s], intervals[s]) for s in SYSTEMS if s in values],
                    "difference": difference,
                    "change": verdict_on(difference),
                    "strip": strip(values, intervals),
                }
            )
    return rows


def strip(values: Mapping[str, float | None], intervals: Mapping[str, Sequence | None]) -> dict:
    """Where each system's interval and value stand between the ends of a common scale, in percent."""
    ends = [end for interval in intervals.values() if interval for end in interval]
    low, high = min(ends), max(ends)
    margin = 0.08 * (high - low) or 0.01
    low, high = max(low - margin, 0.0), high + margin if high > 1 else min(high + margin, 1.0)
    marks = [
        (
            system,
            *(round(100 * (x - low) / (high - low), 2) for x in (interval[0], values[system], interval[1])),
        )
        for system, interval in intervals.items()
        if interval
    ]
    return {"low": low, "high": high, "marks": marks}


def verdict_on(difference: Mapping | None) -> str:
    """ "better", "worse", or "same" when the interval holds 0 or there is nothing to compare."""
    if not difference or not difference["ci95"]:
        return "same"
    low, high = difference["ci95"]
    return "better" if low > 0 else "worse" if high < 0 else "same"


def sentence(name: str, row: Mapping) -> str:
    """One finding in words, e.g. "aesthetic@5 rose from 0.507 to 0.571 (+0.064, 95 % interval ...)"."""
    values = {system: value for system, value, _ in row["cells"]}
    before, after = values["baseline"], values["aligned"]
    verb = {"better": "rose", "worse": "fell", "same": "did not clearly change"}[row["change"]]
    low, high = row["difference"]["ci95"]
    moved = f"{verb}: {before:.3f} before, {after:.3f} after"
    changed = f"{after - before:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}".replace("-", "−")
    return f"{name} {moved} ({changed})"


def findings(rows: Iterable[Mapping], document: Mapping) -> list[str]:
    """The sentences at the top: beauty, precision, recall, the judge's choice, the share of the gain."""
    by_name = {row["name"]: row for row in rows if row["difference"]}
    wanted = (f"aesthetic@{TOP_K}", f"precision@{TOP_K}", "recall@10", "hpir_aesthetic")
    found = [sentence(name, by_name[name]) for name in wanted if name in by_name]
    rate = document["win_rate"].get("aligned_vs_baseline")
    if rate:
        low, high = rate["ci95"]
        found.append(
            f"the judge preferred the results after for {rate['wins']} queries, "
            f"those before for {rate['losses']} "
            f"(win rate {rate['value']:.3f}, 95 % interval {low:.3f} to {high:.3f})"
        )
    for system, shares in document["share_of_teacher_gain"].items():
        share = shares.get(f"aesthetic@{TOP_K}")
        if share is not None:
            how = " with the text tower alone aligned" if system == "text" else ""
            found.append(
                f"one vector search{how} reached {share:.0%} of the aesthetic gain of the teacher's cascade"
            )
    return found


def templates(*packages: str) -> jinja2.Environment:
    """The templates of those packages, after those shared here; whatever comes from data is escaped."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([str(resources.files(p)) for p in ("jobs.evaluate.page", *packages)]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def render(document: Mapping, shown: Sequence[Sheet], losses: Sequence[Sheet], config: EvaluateConfig) -> str:
    """The page. Everything that comes from data is escaped."""
    rows = headline(document)
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            report=document,
            rows=rows,
            findings=findings(rows, document),
            systems=[s for s in SYSTEMS if s in document["metrics"]],
            labels=LABELS,
            sheets=shown,
            losses=losses,
            config=config,
            top_k=TOP_K,
        )
    )
