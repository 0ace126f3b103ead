"""People's votes on two images for a query, on which `p_winner` is calibrated.

They come from the table `--votes`, or else from the direct choices of two images in `feedback`. The images of
a query are scored as those of a ranking are. Their gaps are stored in `voted_pairs`, so that a later
run of the same scores does not ask the judge again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from actors.stages import plain_errors
from cluster import terminal
from cluster.errors import UserError, shown
from cluster.sql import literal
from cluster.tables import SCHEMAS, Store, embeddings_table
from cluster.votes import tables
from cluster.votes.events import same_words
from jobs.label.calibration import MIN_PAIRS, Evidence
from jobs.label.pairs import Grid
from jobs.label.prepare import LabelRun, make_scorer

KEY = ("run_id", "query", "first", "second")
ONE_ROW = Grid(rows=1, columns=1_000_000, stride=1)  # all images of a query, each with each

Pair = tuple[str, str, str]  # query, first, second image


class Votes(NamedTuple):
    """How many people preferred the first image, and how many voted; a tie counts half."""

    preferred: float
    total: float


def requested_votes(path: str | None, label_run: LabelRun) -> tuple[str, dict[Pair, Votes]]:
    """Where the votes come from, and the votes on pairs of embedded images, added up for each pair.

    Raises UserError for a table `path` that cannot be read, or that has fewer than `MIN_PAIRS` usable pairs.
    """
    store = label_run.store
    embedded = store.read(embeddings_table(label_run.encoder.encoder), ["image_id"])
    known = set(map(str, embedded["image_id"].to_pylist()))
    if not path:
        return "feedback", added_up(row for row in choices(store) if known.issuperset(row[1:3]))
    images = store.read("images", ["image_id", "uri"]).to_pydict()
    uris = {i: uri for i, uri in zip(images["image_id"], images["uri"], strict=True) if i in known}
    rows = tables.read_pairs(path)
    names = (name for row in rows for name in (*row.group_a, *row.group_b))
    usable = tables.with_image_ids(rows, tables.match_images(names, uris, Path(path).parent))
    votes = added_up(
        (row.query, row.group_a[0], row.group_b[0], v.a + v.tie / 2, v.a + v.b + v.tie)
        for row in usable
        for v in [row.votes["aesthetic"]]
    )
    if len(votes) < MIN_PAIRS:
        raise UserError(
            f"--votes {shown(path)} has votes on {len(votes)} pairs of images that the encoder has embedded, "
            f"but calibration needs {MIN_PAIRS}: collect more, or omit --votes."
        )
    return "votes", votes


def choices(store: Store) -> list[tuple[str, str, str, float, float]]:
    """(query, chosen image, other image, 1, 1) of each person's last direct choice between two images."""
    if not store.exists("feedback"):
        return []
    names = ("at", "event_id", "client", "query", "image_id", "over")
    events = store.read("feedback", names, "kind = 'prefer' AND query != ''").to_pylist()
    last = {
        (event["client"], same_words(event["query"]), frozenset((event["image_id"], event["over"]))): event
        for event in sorted(events, key=lambda event: (event["at"], event["event_id"]))
    }
    return [(event["query"], event["image_id"], event["over"], 1.0, 1.0) for event in last.values()]


def added_up(rows: Iterable[tuple[str, str, str, float, float]]) -> dict[Pair, Votes]:
    """(query, image, other image, votes for the image, all votes) -> the sums, by pair in either order."""
    found: dict[Pair, Votes] = {}
    for query, image, other, preferred, total in rows:
        first, second = sorted((image, other))
        before = found.get((query, first, second), Votes(0.0, 0.0))
        own = preferred if image == first else total - preferred
        if query and first != second and total > 0:
            found[query, first, second] = Votes(before.preferred + own, before.total + total)
    return found


def evidence(source: str, votes: Mapping[Pair, Votes], gaps: Mapping[Pair, tuple[float, float]]) -> Evidence:
    """The voted pairs whose gaps are known, as something to calibrate on."""
    known = [pair for pair in votes if pair in gaps]
    total = np.array([votes[pair].total for pair in known], dtype=np.float64)
    return Evidence(
        source,
        np.array([gaps[pair] for pair in known]).reshape(-1, 2),
        np.array([votes[pair].preferred for pair in known]) / total,
        total / total.mean() if known else total,
        np.array([query for query, _, _ in known], dtype=object),
    )


def gaps_of(votes: Mapping[Pair, Votes], label_run: LabelRun) -> dict[Pair, tuple[float, float]]:
    """The gaps of the voted pairs by this run's scores; pairs without any yet are scored.

    Too few votes to calibrate on are not worth the judge's work, so none of them is scored.
    """
    gaps = stored_gaps(label_run)
    missing = [pair for pair in votes if pair not in gaps]
    if missing and len(votes) >= MIN_PAIRS:
        gaps |= score(missing, label_run)
        if num_lost := sum(pair not in gaps for pair in votes):
            terminal.say(f"label: {num_lost} of {len(votes)} voted pairs could not be scored")
    return gaps


def stored_gaps(label_run: LabelRun) -> dict[Pair, tuple[float, float]]:
    """The gaps of the voted pairs that this run has scored."""
    if not label_run.store.exists("voted_pairs"):
        return {}
    where = f"run_id = {literal(label_run.provenance.run_id)}"
    return {
        (row["query"], row["first"], row["second"]): (row["aesthetic_gap"], row["semantic_gap"])
        for row in label_run.store.read("voted_pairs", where=where).to_pylist()
    }


def score(pairs: list[Pair], label_run: LabelRun) -> dict[Pair, tuple[float, float]]:
    """Score the images of the pairs, store the gaps and return them; a pair that has no answer is absent."""
    only: dict[str, list[str]] = {}
    for query, first, second in pairs:
        only[query] = list(dict.fromkeys([*only.get(query, []), first, second]))
    own = replace(
        label_run,
        retrieval=replace(label_run.retrieval, only=only),
        rule=replace(label_run.rule, grid=ONE_ROW),
        num_asked=0,
    )
    terminal.say(f"label: scoring {len(pairs)} pairs of images that people voted on")
    with plain_errors():
        own.connect()
        rows = own.ranked(own.retrieved(list(only)), make_scorer(own.config, own))
        found = gaps_in(rows.iter_rows(), pairs)
    run_id, schema = label_run.provenance.run_id, SCHEMAS["voted_pairs"]
    stored = [dict(zip(schema.names, (run_id, *pair, *gaps), strict=True)) for pair, gaps in found.items()]
    if stored:
        label_run.store.merge("voted_pairs", pa.Table.from_pylist(stored, schema), on=KEY)
    return found


def gaps_in(rows: Iterable[Mapping], pairs: Iterable[Pair]) -> dict[Pair, tuple[float, float]]:
    """The gaps of those pairs that rows of `RANKED` have, first image minus second, whichever of them won."""
    found: dict[Pair, tuple[float, float]] = {}
    for row in rows:
        for pair in row["pairs"]:
            aesthetic, semantic = pair["aesthetic_gap"], pair["semantic_gap"]
            found[row["query"], pair["winner"], pair["loser"]] = (aesthetic, semantic)
            found[row["query"], pair["loser"], pair["winner"]] = (-aesthetic, -semantic)
    return {pair: found[pair] for pair in pairs if pair in found}
