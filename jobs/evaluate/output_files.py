"""The files that an evaluation writes beside report.json: figures and page can be made again from them.

- `answers.parquet`: the results shown (`system`, `query`, `rephrased`, `rank`, `image_id`, `accurate`,
  `aesthetics`; the last two are null where unknown).
- `series.parquet`: each metric's value of each query (`system`, `metric`, `value`, `weight`).
- `rows.parquet`: a challenger's results of a query compared with the baseline's (`challenger`, `query`,
  `differs`, and per protocol `<protocol>_first` and `<protocol>_second`: the judge's margins with the
  challenger shown first and second).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import yaml
from pyarrow import parquet
from pydantic import BaseModel, ValidationError

from cluster.errors import UserError
from jobs.evaluate.config import EvaluateConfig
from jobs.evaluate.figures.per_query import QueryValues
from jobs.evaluate.summary import EvaluationResults

Config = TypeVar("Config", bound=BaseModel)

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
    """The three tables of the module's description."""

    answers: pa.Table
    series: pa.Table
    rows: pa.Table

    def values_of(self, system: str) -> dict[str, QueryValues]:
        """metric -> values by query of that system; empty for a system that was not evaluated."""
        return values_in(self.series, system)

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
            [_rows(found, name, config) for name in found.systems if name in found.matched_pairs]
            or [pa.table({"challenger": pa.array([], pa.string()), "query": pa.array([], pa.string())})]
        ),
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


def values_in(table: pa.Table, system: str) -> dict[str, QueryValues]:
    """metric -> values by query of one system in a table of `SERIES`; empty if the table lacks it."""
    found: dict[str, list[dict]] = {}
    for row in table.to_pylist():
        if row["system"] == system:
            found.setdefault(row["metric"], []).append(row)
    return {
        metric: QueryValues(*(np.array([row[key] for row in rows]) for key in ("value", "weight")))
        for metric, rows in found.items()
    }


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


def _rows(found: EvaluationResults, challenger: str, config: EvaluateConfig) -> pa.Table:
    queries = found.inputs.queries
    columns = {
        "challenger": pa.array([challenger] * len(queries)),
        "query": pa.array(queries),
        "differs": pa.array(found.differs(challenger)),
    }
    for protocol in config.protocols:
        first, second = found.margins(challenger, protocol).T
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


def read(folder: Path) -> EvaluationTables:
    """The tables in the folder. Raises UserError if they are missing."""
    paths = {one.name: folder / f"{one.name}.parquet" for one in fields(EvaluationTables)}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise _no_evaluation(folder, ", ".join(missing))
    return EvaluationTables(**{name: parquet.read_table(path) for name, path in paths.items()})


def read_document(folder: Path) -> dict:
    """The content of report.json in the folder. Raises UserError if it is missing."""
    path = folder / "report.json"
    if not path.is_file():
        raise _no_evaluation(folder, path.name)
    return json.loads(path.read_text(encoding="utf-8"))


def read_config(folder: Path, config_type: type[Config]) -> Config:
    """The config that an evaluation in the folder ran with.

    Raises UserError if it is missing, or was written by another version.
    """
    path = folder / "resolved_config.yaml"
    if not path.is_file():
        raise _no_evaluation(folder, path.name)
    try:
        return config_type.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError:
        raise UserError(f"{path} was written by another version of kallos: evaluate again") from None


def _no_evaluation(folder: Path, missing: str) -> UserError:
    return UserError(f"no evaluation in {folder}: {missing} missing; run `kallos evaluate` first")
