"""Draws the page of an evaluation or a suite again, from the files in its folder; no model is loaded."""

from pathlib import Path

from jobs.evaluate import job as evaluate
from jobs.evaluate.output_files import read_document
from lab.redraw.config import RedrawConfig
from lab.suite import job as suite


def run(config: RedrawConfig) -> dict:
    """Write report.html; returns the content of report.json. Raises UserError if there is no evaluation."""
    folder = Path(config.folder)
    draw_page = suite.draw_page if "suite" in read_document(folder) else evaluate.draw_page
    return draw_page(folder, config)
