"""What an evaluation leaves beside report.json, so that figures and page can be made again without asking.

`answers.parquet`: each result shown (`system`, `query`, `rephrased`, `rank`, `image_id`, `accurate`,
`aesthetics`; the last two are null where nobody knows). `series.parquet`: each metric's value of each query
(`system`, `metric`, `value`, `weight`). `rows.parquet`: each query's rows of a challenger against the
baseline's (`challenger`, `query`, `differs`, `people`, and per protocol `<protocol>_first`,
`<protocol>_second`: the judge's margins with the challenger shown first and second).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from pyarrow import parquet
from pydantic import ValidationError

from cluster.errors import UserError
from jobs.evaluate.config import DRAWING, EvaluateConfig
from jobs.evaluate.figures import per_query
from jobs.evaluate.summary import Evaluation

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
class Saved:
    """The three tables of the module's description."""

    answers: pa.Table
    series: pa.Table
    rows: pa.Table

    def series_of(self, system: str) -> dict[str, per_query.Series]:
        """metric -> values by query of that system; none for a system that was not asked."""
        return series_in(self.series, system)

    def margins(self, protocol: str) -> np.ndarray:
        """The protocol's margins of all `rows`, float [N, 2]."""
        return np.stack(
            [self.rows[f"{protocol}_{order}"].to_numpy() for order in ("first", "second")], axis=1
        )


def of(evaluation: Evaluation, config: EvaluateConfig) -> Saved:
    """The tables of an evaluation."""
    return Saved(
        pa.Table.from_pylist(_answers(evaluation), ANSWERS),
        pa.Table.from_pylist(series_rows(evaluation.series), SERIES),
        pa.concat_tables(
            [_rows(evaluation, name, config) for name in evaluation.answers if name in evaluation.duels]
            or [pa.table({"challenger": pa.array([], pa.string()), "query": pa.array([], pa.string())})]
        ),
    )


def series_rows(series: Mapping[str, Mapping[str, per_query.Series]]) -> list[dict]:
    """Rows of `SERIES`: system -> metric -> values by query."""
    return [
        {"system": system, "metric": metric, "value": value, "weight": weight}
        for system, found in series.items()
        for metric, s in found.items()
        for value, weight in zip(s.values.tolist(), s.weights.tolist(), strict=True)
    ]


def series_in(table: pa.Table, system: str) -> dict[str, per_query.Series]:
    """metric -> values by query of one system in a table of `SERIES`; empty for one that it lacks."""
    found: dict[str, list[dict]] = {}
    for row in table.to_pylist():
        if row["system"] == system:
            found.setdefault(row["metric"], []).append(row)
    return {
        metric: per_query.Series(*(np.array([row[key] for row in rows]) for key in ("value", "weight")))
        for metric, rows in found.items()
    }


def _answers(evaluation: Evaluation) -> list[dict]:
    rows = []
    for system, answers in evaluation.answers.items():
        for query, ids in zip(evaluation.asked.queries, answers.rows, strict=True):
            accurate: list = [None] * len(ids)
            aesthetics: list = [None] * len(ids)
            if evaluation.marks is not None and ids:
                accurate = evaluation.marks.accurate(query, ids).tolist()
                aesthetics = evaluation.marks.aesthetics(ids).tolist()
            rephrased = evaluation.candidates.rephrased.get(query, "")
            rows += [
                dict(zip(ANSWERS.names, (system, query, rephrased, rank, *found), strict=True))
                for rank, found in enumerate(zip(ids, accurate, aesthetics, strict=True), start=1)
            ]
    return rows


def _rows(evaluation: Evaluation, challenger: str, config: EvaluateConfig) -> pa.Table:
    queries, people = evaluation.asked.queries, evaluation.people(challenger, config.seed)
    columns = {
        "challenger": pa.array([challenger] * len(queries)),
        "query": pa.array(queries),
        "differs": pa.array(evaluation.differs(challenger)),
        "people": pa.nulls(len(queries), pa.int64()) if people is None else pa.array(people, pa.int64()),
    }
    for protocol in config.protocols:
        first, second = evaluation.margins(challenger, protocol).T
        columns |= {f"{protocol}_first": pa.array(first), f"{protocol}_second": pa.array(second)}
    return pa.table(columns)


def write(saved: Saved, folder: Path) -> None:
    """Write the tables into the folder."""
    for name in asdict(saved):
        parquet.write_table(getattr(saved, name), folder / f"{name}.parquet")


def read(folder: Path) -> Saved:
    """The tables in the folder. Raises UserError where no evaluation left them."""
    paths = {field.name: folder / f"{field.name}.parquet" for field in fields(Saved)}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise UserError(
            f"no evaluation in {folder}: {', '.join(missing)} missing; run `kallos evaluate` first"
        )
    return Saved(**{name: parquet.read_table(path) for name, path in paths.items()})


def read_document(folder: Path) -> dict:
    """The content of report.json in the folder. Raises UserError where there is none."""
    path = folder / "report.json"
    if not path.is_file():
        raise UserError(f"no evaluation in {folder}: report.json missing; run `kallos evaluate` first")
    return json.loads(path.read_text(encoding="utf-8"))


def read_config(config: EvaluateConfig) -> EvaluateConfig:
    """How the evaluation in `config.out` was asked, drawn as `config` wants it drawn.

    Raises UserError where there is none, or one of another version.
    """
    path = Path(config.out) / "resolved_config.yaml"
    if not path.is_file():
        raise UserError(f"no evaluation in {config.out}: {path.name} missing; run `kallos evaluate` first")
    try:
        asked = EvaluateConfig(**yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError:
        raise UserError(f"{path} is of another version of kallos: run `kallos evaluate` again") from None
    return asked.model_copy(update={name: getattr(config, name) for name in DRAWING})
