"""Tables of a suite, each with a record of its origin, so that a resumed suite never mixes old and new."""

from collections.abc import Mapping
from pathlib import Path

from pyarrow import parquet

from cluster import command
from jobs.evaluate.config import EvaluateConfig, PageOptions
from jobs.evaluate.figures.per_query import QueryValues
from jobs.evaluate.output_files import series_table


def origin_of(config: EvaluateConfig, **others: object) -> dict:
    """Everything that determines a table's figures: the evaluation, the profile's content, and `others`."""
    options = config.model_dump(mode="json", exclude={"out", *PageOptions.model_fields})
    return {"config": options, "profile": command.profile_of(config).model_dump(mode="json"), **others}


def write_values(values: Mapping[str, Mapping[str, QueryValues]], path: Path, origin: Mapping) -> None:
    """Write name -> metric -> values by query, in the form of an evaluation's `series.parquet`."""
    parquet.write_table(series_table(values), path)
    mark(path, origin)


def mark(path: Path, origin: Mapping) -> None:
    """Record the origin of a finished table beside it."""
    path.with_suffix(".made_of").write_text(command.to_json(origin), encoding="utf-8")


def has_origin(path: Path, origin: Mapping) -> bool:
    """Whether the table exists and has this origin."""
    mark = path.with_suffix(".made_of")
    return path.is_file() and mark.is_file() and mark.read_text(encoding="utf-8") == command.to_json(origin)
