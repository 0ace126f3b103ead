"""Write: preferences first, then the ranking that marks its query as done.

A run killed between the two writes the preferences again, and the merge adds none of them twice.
"""

from dataclasses import asdict, dataclass

import pyarrow as pa

from cluster.schemas import PREFERENCE_KEY
from cluster.tables import SCHEMAS, Store, now

DONE = pa.schema({"query": pa.string(), "error": pa.string(), "num_failed_answers": pa.int64()})
RANKING_KEY = ("run_id", "query")


@dataclass(frozen=True)
class Run:
    """What every row of a run says of where it comes from."""

    run_id: str
    style: str
    source: str
    judge: str
    encoder: str


class Write:
    """Ray Data actor, `batch_format="pyarrow"`: rows of `RANKED` -> the tables -> rows of `DONE`.

    Queries that carry an error are not written, so that the next run tries them again.
    """

    def __init__(self, *, store: Store, run: Run):
        self.store = store
        self.run = run

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        fine = [row for row in rows if not row["error"]]
        self._merge(
            "preferences", [pair for row in fine for pair in preference_rows(row, self.run)], PREFERENCE_KEY
        )
        self._merge("rankings", [ranking_row(row, self.run) for row in fine], RANKING_KEY)
        return pa.Table.from_pylist([done_row(row) for row in rows], DONE)

    def _merge(self, name: str, rows: list[dict], on: tuple[str, ...]) -> None:
        if rows:
            self.store.merge(name, pa.Table.from_pylist(rows, SCHEMAS[name]), on=on)


def preference_rows(row: dict, run: Run) -> list[dict]:
    """Rows of `preferences` of one ranked query."""
    told = {name: value for name, value in asdict(run).items() if name != "encoder"}
    about = {"query": row["query"], "rephrased": row["rephrased"], **told}
    return [{**about, **pair} for pair in row["pairs"]]


def ranking_row(row: dict, run: Run) -> dict:
    """The row of `rankings` of one ranked query."""
    names = ("query", "rephrased", "image_ids", "semantic_scores", "aesthetic_scores")
    return {**asdict(run), **{name: row[name] for name in names}, "created_at": now()}


def done_row(row: dict) -> dict:
    """What became of one query."""
    return {name: row[name] for name in DONE.names}
