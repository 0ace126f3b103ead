"""Turns rows of `feedback` into counts, win shares and votes in HPIR form."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from cluster import command
from cluster.errors import UserError, shown
from cluster.schemas import HPIR_COLUMNS, HPIR_TIES, HUMAN
from cluster.tables import Store
from cluster.votes.events import CRITERIA, SWAPPED, Results, blind_question, comparison
from jobs.feedback.config import FeedbackConfig

HPIR_NAMES = {"accuracy": "accuracy", "aesthetics": "aesthetic"}  # HPIR has no votes on diversity


class Vote(NamedTuple):
    """One person's verdicts on two systems' results: criterion -> "a" (`first` is better), "b" or "tie"."""

    query: str
    first: Results
    second: Results
    verdicts: Mapping[str, str]


def run(config: FeedbackConfig) -> dict[str, Any]:
    """Run the job and return its report; write the export if one is requested."""
    _, store = command.settings(config)
    if config.export:
        check_export(config.export)
    if not store.exists("feedback") or not store.count("feedback"):
        raise UserError(
            f"{store} has no feedback: collect some with `kallos serve`, or give another --store."
        )
    events = store.read("feedback", ["kind", "system", "other_system"])
    votes = last_votes(store.read("feedback", where="kind = 'blind'").to_pylist())
    num_preferences = store.count("preferences", f"source = '{HUMAN}'") if store.exists("preferences") else 0
    report = {
        "num_events": events.num_rows,
        "kinds": _counted(events["kind"]),
        "systems": _counted(events["system"], events["other_system"]),
        "num_preferences": num_preferences,
        "num_votes": len(votes),
        "blind": shares(votes),
    }
    return {**report, **(_export(votes, config.export, store) if config.export else {})}


def check_export(path: str) -> None:
    """Raise UserError for a path to which no votes can be written."""
    if not path.endswith(".parquet"):
        raise UserError(f"--export {shown(path)} must end in .parquet: the votes are written as Parquet.")
    command.output_folder(Path(path).parent)
    if Path(path).is_dir():
        raise UserError(f"--export {shown(path)} is a folder: give the path of a file.")


def _counted(*columns: pa.ChunkedArray) -> dict[str, int]:
    counts = Counter(value for column in columns for value in column.to_pylist() if value)
    return dict(sorted(counts.items()))


def last_votes(events: Iterable[Mapping[str, Any]]) -> list[Vote]:
    """Rows of `feedback` of kind `blind` -> one vote per person, query and pair of encoders.

    It does not matter which results were shown on which side. The last results that a person compared count,
    with the last verdict on them for each criterion.
    """
    votes: dict[tuple, Vote] = {}
    for event in sorted(events, key=lambda event: (event["at"], event["event_id"])):
        first, second, given = comparison(event)
        question = (event["client"], blind_question(event))
        before = votes.get(question)
        verdicts = before.verdicts if before and before[1:3] == (first, second) else {}
        votes[question] = Vote(event["query"], first, second, {**verdicts, **given})
    return list(votes.values())


def shares(votes: Iterable[Vote]) -> list[dict[str, Any]]:
    """For each compared pair of systems and each criterion: the votes and a's share, a tie counting half."""
    counts: dict[tuple, dict[str, Counter]] = {}
    for vote in votes:
        names = [(results.system, results.encoder) for results in (vote.first, vote.second)]
        swapped = names[0] > names[1]
        counted = counts.setdefault(tuple(sorted(names)), {name: Counter() for name in CRITERIA})
        for name, verdict in vote.verdicts.items():
            counted[name][SWAPPED[verdict] if swapped else verdict] += 1
    return [
        {
            "a": {"system": a[0], "encoder": a[1]},
            "b": {"system": b[0], "encoder": b[1]},
            **{name: _share(counted[name]) for name in CRITERIA},
        }
        for (a, b), counted in sorted(counts.items())
    ]


def _share(counted: Counter) -> dict[str, Any]:
    total = counted.total()
    share = (counted["a"] + counted["tie"] / 2) / total if total else None
    return {**{verdict: counted[verdict] for verdict in SWAPPED}, "share_a": share}


def hpir_table(votes: Iterable[Vote]) -> pa.Table:
    """Votes in HPIR form: one row per query and pair of different groups, sorted."""
    counts: dict[tuple, Counter] = {}
    for vote in votes:
        key = (vote.query, vote.first.image_ids, vote.second.image_ids)
        columns = [
            f"votes_{HPIR_NAMES[name]}_{verdict}"
            for name, verdict in vote.verdicts.items()
            if name in HPIR_NAMES
        ]
        if vote.query and columns and vote.first.image_ids != vote.second.image_ids:
            counts.setdefault(key, Counter()).update(columns)
    names = (*HPIR_COLUMNS, *HPIR_TIES)
    types = [pa.string(), *[pa.list_(pa.string())] * 2, *[pa.int64()] * (len(names) - 3)]
    schema = pa.schema(list(zip(names, types, strict=True)))
    rows = [
        {**dict(zip(names[:3], key, strict=True)), **{name: counted[name] for name in names[3:]}}
        for key, counted in sorted(counts.items())
    ]
    return pa.Table.from_pylist(rows, schema)


def _export(votes: Iterable[Vote], path: str, store: Store) -> dict[str, Any]:
    """Write the HPIR table; the file appears complete or not at all."""
    table = hpir_table(votes)
    if not table.num_rows:
        raise UserError(
            f"{store} has no blind comparison by accuracy or aesthetics, so there is nothing to export: omit "
            "--export, or collect comparisons first."
        )
    target = Path(path)
    draft = target.with_name(f".{target.name}.draft")
    parquet.write_table(table, draft)
    draft.replace(target)
    return {"export": str(target), "num_rows": table.num_rows}
