"""Reads the files that `kallos evaluate` writes: see `jobs.evaluate.output_files`."""

import json
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import yaml
from pyarrow import parquet
from pydantic import BaseModel, ValidationError

from cluster.errors import UserError
from jobs.evaluate.figures.per_query import QueryValues
from jobs.evaluate.output_files import EvaluationTables

Config = TypeVar("Config", bound=BaseModel)


def read_tables(folder: Path) -> EvaluationTables:
    """The tables in the folder. Raises UserError if they are missing."""
    paths = {one.name: folder / f"{one.name}.parquet" for one in fields(EvaluationTables)}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise _no_evaluation(folder, ", ".join(missing))
    try:
        return EvaluationTables(**{name: parquet.read_table(path) for name, path in paths.items()})
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"the tables in {folder} cannot be read ({error}): evaluate again") from None


def read_document(folder: Path) -> dict:
    """The content of report.json in the folder. Raises UserError if it is missing."""
    path = folder / "report.json"
    if not path.is_file():
        raise _no_evaluation(folder, path.name)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is not JSON: evaluate again") from None


def read_config(folder: Path, config_type: type[Config]) -> Config:
    """The config that an evaluation in the folder ran with.

    Raises UserError if it is missing, or was written by another version.
    """
    path = folder / "resolved_config.yaml"
    if not path.is_file():
        raise _no_evaluation(folder, path.name)
    try:
        return config_type.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, UnicodeDecodeError, yaml.YAMLError):
        raise UserError(f"{path} was written by another version of kallos: evaluate again") from None


def _no_evaluation(folder: Path, missing: str) -> UserError:
    return UserError(f"no evaluation in {folder}: {missing} missing; run `kallos evaluate` first")


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
