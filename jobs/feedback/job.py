"""From rows of `feedback` to counts, shares and votes in HPIR form."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from cluster import command
from cluster.errors import UserError
from cluster.schemas import HPIR_COLUMNS, HPIR_TIES, HUMAN
from cluster.tables import Store
from jobs.feedback.config import FeedbackConfig

CRITERIA = ("accuracy", "aesthetics", "diversity")
HPIR_NAMES = {"accuracy": "accuracy", "aesthetics": "aesthetic"}  # it does not ask for diversity
OTHER_WAY = {"a": "b", "b": "a", "tie": "tie"}


class Answer(NamedTuple):
    """What one system answered to a query."""

    image_ids: tuple[str, ...]
    system: str
    encoder: str


@dataclass(frozen=True)
class Vote:
    """What one person says of two answers: criterion -> "a" (`first` is better), "b" or "tie"."""

    query: str
    first: Answer
    second: Answer
    verdicts: Mapping[str, str]


def run(config: FeedbackConfig) -> dict[str, Any]:
    """The report, and the export where one is asked for; see the package."""
    _, store = command.settings(config)
    if config.export and not config.export.endswith(".parquet"):
        raise UserError(f"--export {config.export!r} must end in .parquet: it becomes a Parquet table.")
    if not store.exists("feedback") or not store.count("feedback"):
        raise UserError(
            f"{store} holds no feedback: people give it to `kallos serve`, or name another --store."
        )
    events = store.read("feedback", ["kind", "system", "other_system"])
    votes = last_votes(store.read("feedback", where="kind = 'blind'").to_pylist())
    report = {
        "num_events": events.num_rows,
        "kinds": _counted(events["kind"]),
        "systems": _counted(events["system"], events["other_system"]),
        "num_preferences": _num_preferences(store),
        "num_votes": len(votes),
        "blind": shares(votes),
    }
    return {**report, **(_export(votes, config.export, store) if config.export else {})}


def _counted(*columns: pa.ChunkedArray) -> dict[str, int]:
    counts = Counter(value for column in columns for value in column.to_pylist() if value)
    return dict(sorted(counts.items()))


def _num_preferences(store: Store) -> int:
    return store.count("preferences", f"source = '{HUMAN}'") if store.exists("preferences") else 0


def last_votes(events: Iterable[Mapping[str, Any]]) -> list[Vote]:
    """Rows of `feedback` of kind `blind` -> a vote for each person and two answers, on whichever side.

    By each criterion the person's last verdict counts.
    """
    said: dict[tuple[str, str, Answer, Answer], dict[str, str]] = {}
    for event in sorted(events, key=lambda event: (event["at"], event["event_id"])):
        a = Answer(tuple(event["image_ids"]), event["system"], event["encoder"])
        b = Answer(tuple(event["other_image_ids"]), event["other_system"], event["other_encoder"])
        first, second = sorted((a, b))
        verdicts = said.setdefault((event["client"], event["query"], first, second), {})
        verdicts.update({name: _turned(event[name], first is b) for name in CRITERIA if event[name]})
    return [Vote(query, first, second, verdicts) for (_, query, first, second), verdicts in said.items()]


def _turned(verdict: str, other_way: bool) -> str:
    return OTHER_WAY[verdict] if other_way else verdict


def shares(votes: Iterable[Vote]) -> list[dict[str, Any]]:
    """For every two systems that were compared: by each criterion the votes and a's share, ties half each."""
    counts: dict[tuple, dict[str, Counter]] = {}
    for vote in votes:
        names = [(answer.system, answer.encoder) for answer in (vote.first, vote.second)]
        other_way = names[0] > names[1]
        counted = counts.setdefault(tuple(sorted(names)), {name: Counter() for name in CRITERIA})
        for name, verdict in vote.verdicts.items():
            counted[name][_turned(verdict, other_way)] += 1
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
    return {**{verdict: counted[verdict] for verdict in OTHER_WAY}, "share_a": share}


def hpir_table(votes: Iterable[Vote]) -> pa.Table:
    """Votes in HPIR form, a row for each query and two groups that differ; sorted."""
    counts: dict[tuple, Counter] = {}
    for vote in votes:
        key = (vote.query, vote.first.image_ids, vote.second.image_ids)
        told = [
            f"votes_{HPIR_NAMES[name]}_{said}" for name, said in vote.verdicts.items() if name in HPIR_NAMES
        ]
        if vote.query and told and vote.first.image_ids != vote.second.image_ids:
            counts.setdefault(key, Counter()).update(told)
    names = (*HPIR_COLUMNS, *HPIR_TIES)
    types = dict(zip(HPIR_COLUMNS, [pa.string(), *[pa.list_(pa.string())] * 2], strict=False))
    schema = pa.schema({name: types.get(name, pa.int64()) for name in names})
    rows = [
        {**dict(zip(names[:3], key, strict=True)), **{name: counted[name] for name in names[3:]}}
        for key, counted in sorted(counts.items())
    ]
    return pa.Table.from_pylist(rows, schema)


def _export(votes: Iterable[Vote], path: str, store: Store) -> dict[str, Any]:
    """Write the HPIR table, complete or not at all."""
    table = hpir_table(votes)
    if not table.num_rows:
        raise UserError(
            f"{store} holds no blind comparison by accuracy or aesthetics, so there is nothing to export: "
            "leave --export out, or let people compare first."
        )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.draft")
    parquet.write_table(table, draft)
    draft.replace(target)
    return {"export": str(target), "num_rows": table.num_rows}
