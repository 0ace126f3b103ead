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
from jobs.evaluate import DIVERSITY_K, TOP_K, EvaluateConfig, figures, metrics, winrate
from jobs.evaluate.inputs import draw
from jobs.evaluate.summary import SYSTEMS, Evaluation, aesthetic_change
from jobs.evaluate.systems import rows_of

LABELS = {"baseline": "before", "teacher": "teacher", "aligned": "after"}
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
    """One result: its image as a data URI, and what is known of it (None = nothing)."""

    src: str
    caption: str
    accurate: bool | None
    aesthetics: float | None


@dataclass(frozen=True)
class Line:
    """One system's results for a query; `value` is their aesthetic@k, None if nobody marked them."""

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


def sheets(evaluation: Evaluation, store: Store, config: EvaluateConfig) -> tuple[list[Sheet], list[Sheet]]:
    """(queries drawn by seed, queries that lost the most) with their pictures."""
    drawn = draw(range(len(evaluation.asked.queries)), config.num_sheets, config.seed)
    chosen = drawn if config.num_sheets else []
    change = changes(evaluation)
    losses = lost_most(change, config.num_losses)
    shown = {
        image_id
        for number in (*chosen, *losses)
        for answers in evaluation.answers.values()
        for image_id in answers.rows[number]
    }
    pictures = {
        row["image_id"]: (thumbnail(row["preview"], config.thumb_px), row["caption"])
        for row in rows_of(store, "images", ["image_id", "preview", "caption"], shown)
    }
    return tuple([_sheet(evaluation, n, change[n], pictures) for n in group] for group in (chosen, losses))


def changes(evaluation: Evaluation) -> np.ndarray:
    """What each query gained in aesthetic@k, float [Q]: by truth, by the judge, 0 if nobody marked."""
    if evaluation.marks is None:
        return np.zeros(len(evaluation.asked.queries))
    return aesthetic_change(evaluation, evaluation.marks)


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


def _sheet(evaluation: Evaluation, number: int, change: float, pictures: Mapping) -> Sheet:
    query = evaluation.asked.queries[number]
    lines = [
        _line(evaluation, system, query, evaluation.answers[system].rows[number], pictures)
        for system in SYSTEMS
        if system in evaluation.answers
    ]
    rephrased = evaluation.candidates.rephrased.get(query, "")
    gained = float(change) if evaluation.marks else None
    return Sheet(query, rephrased, lines, gained, _verdict(evaluation, number))


def _line(evaluation: Evaluation, system: str, query: str, ids: Sequence[str], pictures: Mapping) -> Line:
    if evaluation.marks is None:
        return Line(LABELS[system], [Cell(*pictures[i], None, None) for i in ids], None)
    accurate, aesthetics = (m[0, : len(ids)] for m in figures.true_marks([query], [ids], evaluation.marks))
    value = float(metrics.aesthetic_at(*figures.true_marks([query], [ids], evaluation.marks))[0])
    cells = [
        Cell(*pictures[i], bool(right), float(beauty))
        for i, right, beauty in zip(ids, accurate, aesthetics, strict=True)
    ]
    return Line(LABELS[system], cells, value)


def _verdict(evaluation: Evaluation, number: int) -> str:
    if not evaluation.differs[number]:
        return "same results"
    if not evaluation.rows_judged:
        return ""
    outcome = int(winrate.row_outcomes(*evaluation.preferences)[number])
    words = {winrate.WIN: "prefers after", winrate.LOSS: "prefers before", winrate.TIE: "sees a tie"}
    return f"the judge {words[outcome]}"


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
    share = document["share_of_teacher_gain"].get(f"aesthetic@{TOP_K}")
    if share is not None:
        found.append(
            f"one vector search reached {share:.0%} of the aesthetic gain of the teacher's whole cascade"
        )
    return found


def render(document: Mapping, shown: Sequence[Sheet], losses: Sequence[Sheet], config: EvaluateConfig) -> str:
    """The page. Everything that comes from data is escaped."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = resources.files("jobs.evaluate").joinpath("report.html.j2").read_text(encoding="utf-8")
    rows = headline(document)
    return environment.from_string(template).render(
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
