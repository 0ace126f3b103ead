"""How often each of the judge's protocols agrees with people, on the groups of images that people voted on.

The judge compares the groups of a row for one criterion at a time, as people did. A protocol gives the row a
margin for either order of presentation, above 0 where group A is better:

- `ranker`: which of two images is better, the first of A against the first of B, and so on: the mean of
  P(A's is better) - 0.5.
- `scorer`: the mean rating of A's images minus that of B's, each image rated alone.
- `cp_scorer`: the mean difference of the ratings of two images that are shown together.
- `sheet`: both groups as rows of one image: P(A is better) - 0.5.

Source: arXiv 2406.09397, the comparison of the LMM judge's prompts with people.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.judge import RatedCriterion
from jobs.evaluate import hpir
from jobs.evaluate.figures import winrate
from jobs.evaluate.figures.metrics import by_query, estimate
from jobs.evaluate.inputs import VoteTable
from jobs.evaluate.language_models import Judgements, JudgeQuestions

JUDGED: dict[str, RatedCriterion] = {
    "accuracy": "accuracy",
    "aesthetic": "aesthetics",
}  # criteria of the votes
JUDGED_VOTES = pa.schema(
    {
        "table": pa.string(),
        "query": pa.string(),
        "criterion": pa.string(),
        "majority": pa.int64(),
        "confidence": pa.float64(),
    }
)
ORDERS = ("first", "second")
Voted = tuple[str, hpir.Row, str]  # name of the table, one of its rows, a criterion that people voted on


def voted(tables: Sequence[VoteTable]) -> list[Voted]:
    """Every row of the tables, once for each criterion that people voted on."""
    return [
        (table.name, row, criterion)
        for criterion in JUDGED
        for table in tables
        for row in table.rows
        if criterion in row.votes
    ]


def pairs_of(row: hpir.Row) -> list[tuple[str, str, str]]:
    """(query, image of A, image of B) in order; an image beyond the shorter group has no partner."""
    matched = zip(row.group_a, row.group_b, strict=False)
    return [(row.query, a, b) for a, b in matched if a != b]


def questions(protocols: Sequence[str], tables: Sequence[VoteTable]) -> JudgeQuestions:
    """What the protocols ask about the rows of vote tables."""
    compared, sheets = [], []
    rated: dict[str, list[tuple[str, str]]] = {criterion: [] for criterion in JUDGED.values()}
    for _, row, voted_on in voted(tables):
        criterion = JUDGED[voted_on]
        compared += [(criterion, *pair) for pair in pairs_of(row)]
        sheets.append((criterion, row.query, row.group_a, row.group_b))
        rated[criterion] += [(row.query, image_id) for image_id in (*row.group_a, *row.group_b)]
    return JudgeQuestions(
        **(rated if "scorer" in protocols else {}),
        comparisons=compared if "ranker" in protocols else (),
        together=compared if "cp_scorer" in protocols else (),
        sheets=sheets if "sheet" in protocols else (),
    )


def margin(protocol: str, row: hpir.Row, voted_on: str, judgements: Judgements) -> np.ndarray:
    """Margin of one row in either order of presentation, float [2]; a missing answer counts 0."""
    criterion = JUDGED[voted_on]
    if protocol == "scorer":
        ratings = getattr(judgements, criterion)
        a, b = (np.mean([ratings[row.query, i] for i in group]) for group in (row.group_a, row.group_b))
        return np.nan_to_num(np.array([a - b, a - b]))
    if protocol == "sheet":
        answer = judgements.sheets[criterion, row.query, row.group_a, row.group_b]
        answers = np.array([answer]) - 0.5
    elif protocol == "ranker":
        answers = np.array([judgements.compared[criterion, *pair] for pair in pairs_of(row)]) - 0.5
    else:
        together = np.array([judgements.together[criterion, *pair] for pair in pairs_of(row)])
        answers = together.reshape(-1, 2, 2) @ [1.0, -1.0]
    answers = answers.reshape(-1, 2)
    answered = ~np.isnan(answers).any(axis=1)  # one order alone would decide the row
    return answers[answered].sum(axis=0) / max(len(answers), 1)


def table(protocols: Sequence[str], tables: Sequence[VoteTable], judgements: Judgements) -> pa.Table:
    """A row of `JUDGED_VOTES` for each row and criterion, and `<protocol>_first` and `<protocol>_second`: the
    margins with A shown first and second.
    """
    rows = voted(tables)
    votes = [row.votes[criterion] for _, row, criterion in rows]
    columns: dict[str, list] = {
        "table": [name for name, _, _ in rows],
        "query": [row.query for _, row, _ in rows],
        "criterion": [criterion for _, _, criterion in rows],
        "majority": [int(np.sign(v.a - v.b)) for v in votes],
        "confidence": hpir.confidence(votes).tolist(),
    }
    found = pa.table(columns, JUDGED_VOTES)
    for protocol in protocols:
        margins = [margin(protocol, row, criterion, judgements) for _, row, criterion in rows]
        for order, values in zip(ORDERS, np.reshape(margins, (-1, 2)).T, strict=True):
            found = found.append_column(f"{protocol}_{order}", pa.array(values, pa.float64()))
    return found


def with_agreement(rows: Sequence[dict], judged: pa.Table, *, num_resamples: int, seed: int) -> list[dict]:
    """Rows of `protocols.table` with "people": criterion -> how often the protocol agrees with the majority.

    A row of votes weighs as much as the majority is confident, and a tie of the judge counts half. The
    interval is over queries.

    judged: rows of `table`. A row about one criterion of `sheet` is compared with the votes on it alone.
    """
    found = []
    for row in rows:
        protocol, _, only = row["protocol"].partition(", ")
        people = {}
        for criterion in dict.fromkeys(judged.to_pydict()["criterion"]):
            if only in ("", JUDGED[criterion]):
                own = agreement(judged, protocol, criterion, consistent=row["order_consistency"], seed=seed)
                people[criterion] = estimate(*own, num_resamples=num_resamples, seed=seed).as_dict()
        found.append({**row, "people": people})
    return found


def agreement(
    judged: pa.Table, protocol: str, criterion: str, *, consistent: bool, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """How often a protocol sides with the majority of the votes on a criterion, by query: (values, weights).

    A tie of the judge counts half. Both float [Q].
    """
    votes = judged.filter(pc.field("criterion") == criterion)
    margins = np.stack([votes[f"{protocol}_{order}"].to_numpy() for order in ORDERS], axis=1)
    sides = winrate.outcomes(margins, consistent=consistent, seed=seed)
    agrees = 0.5 + 0.5 * sides * votes["majority"].to_numpy()
    return by_query(votes["query"].to_pylist(), agrees, votes["confidence"].to_numpy())
