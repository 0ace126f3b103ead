"""The files that an evaluation writes: report.json, and tables from which the figures can be recomputed.

- `answers.parquet`: the results shown (`system`, `query`, `rephrased`, `rank`, `image_id`, `accurate`,
  `aesthetics`; the last two are null where unknown).
- `series.parquet`: each metric's value for each query (`system`, `metric`, `value`, `weight`).
- `rows.parquet`: a challenger's results of a query compared with the baseline's (`challenger`, `query`,
  `differs`, and per protocol `<protocol>_first` and `<protocol>_second`: the judge's margins with the
  challenger shown first and second).
- `votes.parquet`: the judge's margins on the rows that people voted on (`table`, `query`, `criterion`,
  `majority`: 1 for group A, -1 for B, `confidence`, and per protocol the same two columns).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from jobs.evaluate.config import EvaluateConfig, Match
from jobs.evaluate.figures.per_query import QueryValues
from jobs.evaluate.summary import EvaluationResults

ANSWERS = pa.schema(
    {
        "system": pa.string(),
        "query": pa.string(),
        "rephrased": pa.string(),
        "rank": pa.int32(),
        "image_id": pa.string(),
        "accurate": pa.bool_(),
        "aesthetics": pa.float32(),
    }
)
SERIES = pa.schema(
    {"system": pa.string(), "metric": pa.string(), "value": pa.float64(), "weight": pa.float64()}
)


@dataclass(frozen=True)
class EvaluationTables:
    """The tables that the module describes."""

    answers: pa.Table
    series: pa.Table
    rows: pa.Table
    votes: pa.Table

    def margins(self, protocol: str) -> np.ndarray:
        """The protocol's margins of all `rows`, float [N, 2]."""
        orders = (f"{protocol}_first", f"{protocol}_second")
        return np.stack([self.rows[order].to_numpy() for order in orders], axis=1)


def tables_of(found: EvaluationResults, config: EvaluateConfig) -> EvaluationTables:
    """The tables of an evaluation."""
    return EvaluationTables(
        pa.Table.from_pylist(_answers(found), ANSWERS),
        series_table(found.values),
        pa.concat_tables(
            [_rows(found, match, config) for match in found.over_baseline.values()]
            or [pa.table({"challenger": pa.array([], pa.string()), "query": pa.array([], pa.string())})]
        ),
        found.judged_votes(config),
    )


def series_table(values: Mapping[str, Mapping[str, QueryValues]]) -> pa.Table:
    """A table of `SERIES` from system -> metric -> values by query."""
    rows = [
        {"system": system, "metric": metric, "value": value, "weight": weight}
        for system, of_system in values.items()
        for metric, own in of_system.items()
        for value, weight in zip(own.values.tolist(), own.weights.tolist(), strict=True)
    ]
    return pa.Table.from_pylist(rows, SERIES)


def _answers(found: EvaluationResults) -> list[dict]:
    rows = []
    for system, results in found.systems.items():
        for query, ids in zip(found.inputs.queries, results.top, strict=True):
            rephrased = found.candidates.rephrased.get(query, "")
            rows += [
                dict(zip(ANSWERS.names, (system, query, rephrased, rank, *marked), strict=True))
                for rank, marked in enumerate(zip(ids, *_marks(found, query, ids), strict=True), start=1)
            ]
    return rows


def _marks(found: EvaluationResults, query: str, ids: list[str]) -> tuple[list, list]:
    """(accurate, aesthetics) of each image, None where unknown."""
    if found.marks is None or not ids:
        return [None] * len(ids), [None] * len(ids)
    beauty = found.marks.aesthetics(query, ids)
    known = [None if np.isnan(value) else float(value) for value in beauty]
    return found.marks.accurate(query, ids).tolist(), known


def _rows(found: EvaluationResults, match: Match, config: EvaluateConfig) -> pa.Table:
    queries = found.inputs.queries
    columns = {
        "challenger": pa.array([match[0]] * len(queries)),
        "query": pa.array(queries),
        "differs": pa.array(found.differs(match)),
    }
    for protocol in config.protocols:
        first, second = found.margins(match, protocol).T
        columns |= {f"{protocol}_first": pa.array(first), f"{protocol}_second": pa.array(second)}
    return pa.table(columns)


def write(tables: EvaluationTables, document: Mapping, folder: Path) -> None:
    """Write the tables and report.json into the folder."""
    for one in fields(tables):
        parquet.write_table(getattr(tables, one.name), folder / f"{one.name}.parquet")
    write_document(document, folder)


def write_document(document: Mapping, folder: Path) -> None:
    """Write report.json into the folder."""
    (folder / "report.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
