"""The job of `kallos label`: checks all inputs before any work, runs the pipeline, counts the results."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from actors.stages import plain_errors
from cluster import command, terminal
from cluster.errors import JobFailure, shown
from cluster.schemas import near_ties
from cluster.tables import Store
from jobs.label import explain, votes
from jobs.label.calibration import calibrate_run
from jobs.label.config import LabelConfig
from jobs.label.prepare import LabelRun, make_scorer, prepare_run, requested_queries

NUM_SHOWN = 10  # errors that are shown while the job runs


def run(config: LabelConfig) -> dict:
    """Label the queries that this run has not labelled yet, and calibrate its preferences.

    Raises UserError before any work is done.
    """
    if config.explain is not None:
        return explain.run(config)
    started = time.monotonic()
    label_run = prepare_run(config)
    store, provenance = label_run.store, label_run.provenance
    queries = requested_queries(config, label_run)
    vote_source, given = votes.requested_votes(config.votes, label_run)
    left = unlabelled(store, provenance.run_id, queries)
    begun = time.monotonic()
    num_before = count_preferences(label_run, queries)["num_preferences"]
    counts = label_queries(label_run, left) if left else Counts()
    if "://" not in store.uri:
        command.save_config(config, Path(store.uri) / "runs" / f"label-{provenance.run_id}")
    counts.report(len(queries), len(queries) - len(left), store)
    evidence = votes.evidence(vote_source, given, votes.gaps_of(given, label_run))
    calibration = calibrate_run(store, provenance.run_id, evidence)
    terminal.say(f"label: {calibration.sentence()}")
    stored = count_preferences(label_run, queries)
    return {
        "run_id": provenance.run_id,
        "encoder": provenance.encoder,
        "style": provenance.style,
        "source": provenance.source,
        "num_queries": len(queries),
        "num_queries_before": len(queries) - len(left),
        "num_queries_labelled": len(left) - counts.num_errors,
        **stored,
        "num_new_preferences": stored["num_preferences"] - num_before,
        **counts.figures(),
        "calibration": calibration.report(),
        "seconds": {"start": begun - started, "total": time.monotonic() - started},
    }


@dataclass
class Counts:
    """What failed in this invocation.

    num_errors: queries without labels. unreadable: the images that were left out.
    """

    num_errors: int = 0
    num_failed_answers: int = 0
    first_error: str = ""
    unreadable: set[str] = field(default_factory=set)

    def add(self, done: pa.Table) -> None:
        """Count the rows of `DONE`, and show the beginning of the first errors."""
        for row in done.to_pylist():
            self.num_failed_answers += row["num_failed_answers"]
            self.unreadable.update(image["image_id"] for image in row["unreadable"])
            if row["error"]:
                self.num_errors += 1
                self.first_error = self.first_error or row["error"]
                if self.num_errors <= NUM_SHOWN:
                    terminal.say(f"label: no labels for {shown(row['query'])}: {row['error'][:200]}")

    def report(self, num_queries: int, num_before: int, store: Store) -> None:
        """Say what failed. Raises JobFailure when no query of this run has labels."""
        where = f"table rejects of {store.uri} has the reasons"
        if self.num_errors and self.num_errors == num_queries - num_before and not num_before:
            raise JobFailure(
                f"None of the {num_queries} queries was labelled, and the judge gave no answer "
                f"{self.num_failed_answers} times; {where}, the first is: {self.first_error}."
            )
        if self.num_errors:
            terminal.say(f"label: {self.num_errors} of {num_queries} queries have no labels: {where}")
        if self.unreadable:
            terminal.say(f"label: {len(self.unreadable)} images could not be read and were left out: {where}")

    def figures(self) -> dict[str, int]:
        """The counts for the report."""
        return {
            "num_errors": self.num_errors,
            "num_failed_answers": self.num_failed_answers,
            "num_unreadable_images": len(self.unreadable),
        }


def count_preferences(label_run: LabelRun, queries: list[str]) -> dict[str, int]:
    """Rows of this run for these queries, from any invocation."""
    if not label_run.store.exists("preferences"):
        return {"num_preferences": 0, "num_near_ties": 0, "num_inconsistent": 0}
    columns = ["query", "p_winner", "consistent"]
    rows = label_run.store.read("preferences", columns, f"run_id = '{label_run.provenance.run_id}'")
    rows = rows.filter(pc.is_in(rows["query"], pa.array(queries, pa.string())))
    return {
        "num_preferences": rows.num_rows,
        "num_near_ties": int(near_ties(rows["p_winner"].to_numpy()).sum()),
        "num_inconsistent": pc.sum(pc.invert(rows["consistent"])).as_py() or 0,
    }


def unlabelled(store: Store, run_id: str, queries: list[str]) -> list[str]:
    """The queries that have no row in `rankings` for this run."""
    if not store.exists("rankings"):
        return queries
    done = set(store.read("rankings", ["query"], f"run_id = '{run_id}'")["query"].to_pylist())
    return [query for query in queries if query not in done]


def label_queries(label_run: LabelRun, queries: list[str]) -> Counts:
    """Run the pipeline over the queries, with progress on stderr."""
    label_run.connect()
    rows = label_run.written(queries, make_scorer(label_run.config, label_run))
    counts, num_done = Counts(), 0
    with plain_errors(), terminal.progress("label", "queries", len(queries)) as update:
        for done in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
            assert isinstance(done, pa.Table)
            counts.add(done)
            num_done += done.num_rows
            update(num_done, errors=counts.num_errors)
    return counts
