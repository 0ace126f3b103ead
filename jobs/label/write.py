"""Write: preferences first, then the ranking that marks its query as done.

A run killed between the two writes its preferences again when resumed; the merge adds none of them twice.
"""

from dataclasses import asdict, dataclass

import pyarrow as pa

from cluster.schemas import PREFERENCE_KEY
from cluster.tables import SCHEMAS, Store, now
from jobs.label.rerank import UNREADABLE

DONE = pa.schema(
    {
        "query": pa.string(),
        "error": pa.string(),
        "num_failed_answers": pa.int64(),
        "unreadable": UNREADABLE,
    }
)
RANKING_KEY = ("run_id", "query")
REJECT_KEY = ("uri", "error")


@dataclass(frozen=True)
class Provenance:
    """The columns that record where a row comes from."""

    run_id: str
    style: str
    source: str
    judge: str
    encoder: str


class Write:
    """Ray Data actor, `batch_format="pyarrow"`: rows of `RANKED` -> the tables -> rows of `DONE`.

    A query with an error has its reason in `rejects`, and no ranking, so that the next run tries it again.
    """

    def __init__(self, *, store: Store, provenance: Provenance):
        self.store = store
        self.provenance = provenance

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        valid = [row for row in rows if not row["error"]]
        pairs = [pair for row in valid for pair in preference_rows(row, self.provenance)]
        self._merge("preferences", pairs, PREFERENCE_KEY)
        self._merge("rankings", [ranking_row(row, self.provenance) for row in valid], RANKING_KEY)
        self._merge("rejects", [reject for row in rows for reject in reject_rows(row)], REJECT_KEY)
        return pa.Table.from_pylist([done_row(row) for row in rows], DONE)

    def _merge(self, name: str, rows: list[dict], on: tuple[str, ...]) -> None:
        if rows:
            self.store.merge(name, pa.Table.from_pylist(rows, SCHEMAS[name]), on=on)


def preference_rows(row: dict, provenance: Provenance) -> list[dict]:
    """Rows of `preferences` of one ranked query, not calibrated yet."""
    common = {"query": row["query"], "rephrased": row["rephrased"], **asdict(provenance)}
    del common["encoder"]
    return [{**common, "p_winner": None, **pair} for pair in row["pairs"]]


def ranking_row(row: dict, provenance: Provenance) -> dict:
    """The row of `rankings` of one ranked query."""
    names = ("query", "rephrased", "image_ids", "semantic_scores", "aesthetic_scores")
    return {**asdict(provenance), **{name: row[name] for name in names}, "created_at": now()}


def reject_rows(row: dict) -> list[dict]:
    """Rows of `rejects` of one query: why it has no labels, and why images left its candidates."""
    faults = [(row["query"], row["error"])] if row["error"] else []
    faults += [(image["image_id"], image["reason"]) for image in row["unreadable"]]
    return [{"uri": uri, "stage": "label", "error": error, "at": now()} for uri, error in faults]


def done_row(row: dict) -> dict:
    """The row of `DONE` of one query."""
    return {name: row[name] for name in DONE.names}
