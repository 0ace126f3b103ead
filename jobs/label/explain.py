"""`kallos label --explain QUERY`: one page that shows how a query becomes preferences.

The page has the rephrased query, the retrieved images in order, the grid with both scores, the pairs with
`p_winner`, and the reliability diagram of the run, in the style of figure 4 of arXiv 2406.09397. The stages
of the job compute it, and nothing is written into the store.
"""

import base64
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from actors.stages import plain_errors
from cluster import command
from cluster.errors import JobFailure, UserError, shown
from cluster.schemas import near_ties
from jobs.label import votes
from jobs.label.calibration import Calibration, calibrate, read_run
from jobs.label.config import LabelConfig
from jobs.label.pairs import cut, order_rows
from jobs.label.prepare import LabelRun, make_scorer, prepare_run, require_images
from jobs.label.queries import distinct

MAX_NAME = 60  # characters of the query in the name of its file
NOT_USED = ("queries", "num_queries")


def run(config: LabelConfig) -> dict[str, Any]:
    """Write the page and return the report. Raises UserError before any work is done."""
    query, path = check(config)
    label_run = prepare_run(config)
    require_images(config, label_run)
    command.output_folder(path.parent)
    retrieved, row = trace(label_run, query)
    calibration = calibration_of(label_run, row)
    path.write_text(page(label_run, retrieved, row, calibration), encoding="utf-8")
    return {
        "query": query,
        "rephrased": row["rephrased"],
        "page": str(path),
        "num_retrieved": len(retrieved["image_ids"]),
        "num_images": len(row["image_ids"]),
        "num_pairs": len(row["pairs"]),
        "calibration": calibration.report(),
    }


def check(config: LabelConfig) -> tuple[str, Path]:
    """The query on one line, and the path of the page. Raises UserError for options that do not fit."""
    if not (texts := distinct([config.explain or ""])):
        raise UserError("--explain has no query: give its words.")
    for name in NOT_USED:
        if getattr(config, name) is not None:
            raise UserError(f"--explain labels nothing, so --{name.replace('_', '-')} has no use: omit it.")
    slug = re.sub(r"[^\w]+", "-", texts[0].lower())[:MAX_NAME].strip("-") or "query"
    path = Path(config.out or f"runs/label/explain/{slug}.html")
    if path.suffix != ".html" or path.is_dir():
        raise UserError(f"--out {shown(str(path))} must be a file that ends in .html.")
    return texts[0], path


def trace(label_run: LabelRun, query: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The query's row of `Retrieve` and its row of `RANKED`. Raises JobFailure if it cannot be labelled."""
    label_run.connect()
    scorer = make_scorer(label_run.config, label_run)
    with plain_errors():
        rows = label_run.retrieved([query]).materialize()
        (retrieved,), (ranked,) = rows.take_all(), label_run.ranked(rows, scorer).take_all()
    if ranked["error"]:
        raise JobFailure(f"The query {shown(query)} cannot be labelled: {ranked['error']}.")
    return retrieved, ranked


def calibration_of(label_run: LabelRun, row: dict[str, Any]) -> Calibration:
    """The calibration of the same run, by what the store has; before the run, of this query's gaps."""
    gaps, _, consistency = read_run(label_run.store, label_run.provenance.run_id)
    if not len(gaps):
        gaps = np.array([(pair["aesthetic_gap"], pair["semantic_gap"]) for pair in row["pairs"]])
    source, given = votes.requested_votes(label_run.config.votes, label_run)
    return calibrate(votes.evidence(source, given, votes.stored_gaps(label_run)), consistency, gaps)


def page(
    label_run: LabelRun, retrieved: dict[str, Any], row: dict[str, Any], calibration: Calibration
) -> str:
    """The page as HTML."""
    ids = retrieved["image_ids"]
    rows = order_rows(cut(len(row["image_ids"]), label_run.rule.grid.columns), row["aesthetic_scores"])
    stored = label_run.store.rows_of("images", ["image_id", "preview", "caption"], ids)
    images = {i["image_id"]: (base64.b64encode(i["preview"]).decode(), i["caption"]) for i in stored}
    template = resources.files("jobs.label").joinpath("explain.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(template).render(
        run=label_run.provenance,
        rule=label_run.rule,
        row=row,
        ids=ids,
        chosen=set(row["image_ids"]),
        number={image_id: index for index, image_id in enumerate(ids)},
        images=images,
        lines=rows,
        pairs=pair_rows(row["pairs"], calibration),
        calibration=calibration,
    )


def pair_rows(pairs: Sequence[dict[str, Any]], calibration: Calibration) -> list[dict[str, Any]]:
    """The pairs with `p_winner` and `near_tie`, the surest first."""
    gaps = np.array([(pair["aesthetic_gap"], pair["semantic_gap"]) for pair in pairs])
    p_winner = calibration.p_winner(gaps)
    marked = zip(pairs, p_winner.tolist(), near_ties(p_winner).tolist(), strict=True)
    rows = [{**pair, "p_winner": p, "near_tie": near} for pair, p, near in marked]
    return sorted(rows, key=lambda pair: -pair["p_winner"])
