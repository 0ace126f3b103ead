"""Draws the page of an evaluation or a suite again, from the files in its folder; no model is loaded."""

from pathlib import Path

from jobs.evaluate.config import EvaluateConfig
from jobs.evaluate.job import write_page
from lab.evaluation_files import read_config, read_document, read_tables
from lab.redraw.config import RedrawConfig
from lab.suite import job as suite


def run(config: RedrawConfig) -> dict:
    """Write report.html; returns the content of report.json. Raises UserError if there is no evaluation."""
    folder = Path(config.folder)
    document = read_document(folder)
    if "suite" in document:
        return suite.draw_page(folder, config)
    evaluated = read_config(folder, EvaluateConfig).model_copy(update={"out": config.folder})
    return write_page(document, read_tables(folder), evaluated, config)
