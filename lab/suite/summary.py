"""The suite's report.json: every figure over several studios, from the files of their evaluations.

A figure is {"value", "ci95", "num_queries", "seeds"}: the mean over seeds, its bootstrap interval over
studios and the queries within them, and each seed's own value. One that was not measured for every seed is
null.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pyarrow import parquet

from jobs.evaluate.config import CHALLENGERS, PROTOCOLS, SYSTEMS
from jobs.evaluate.figures import compared, judge_votes, metrics, winrate
from jobs.evaluate.figures.per_query import QueryValues
from jobs.evaluate.figures.registry import AESTHETIC, METRICS, PRECISION, RECALL
from jobs.evaluate.output_files import EvaluationTables
from lab.evaluation_files import read_document, read_tables, values_in
from lab.machine import machine
from lab.studio.truth import load_scenes
from lab.suite import over_seeds, people
from lab.suite.config import SuiteConfig
from lab.suite.over_seeds import Group
from lab.suite.styles import STYLE_METRICS

Worlds = Sequence[Mapping[str, QueryValues]]  # one per seed: metric -> values by query
Outcomes = Sequence[np.ndarray]  # one per seed: WIN, TIE or LOSS, int [Q]


def document(folder: Path, seeds: Sequence[int], config: SuiteConfig, measured: Sequence[str]) -> dict:
    """The content of report.json, without targets, versions and times; `measured`: its tables of variants."""
    sampling = {"num_resamples": config.num_resamples, "seed": config.seed}
    folders = [folder / f"seed{seed}" for seed in seeds]
    found = [read_tables(one / "evaluate") for one in folders]
    documents = [read_document(one / "evaluate") for one in folders]
    worlds = [json.loads((one / "world.json").read_text()) for one in folders]
    by_people = outcomes_by_people(folders, found, seeds)
    series = {system: [values_in(tables.series, system) for tables in found] for system in SYSTEMS}
    of = {system: values for system, values in series.items() if all(values)}
    systems = {s: {m: mean(of[s], m, sampling) for m in METRICS} for s in of}
    best = compared.best_null({s: own[AESTHETIC]["value"] for s, own in systems.items()})
    return {
        "suite": config.kind,
        "seeds": list(seeds),
        "intervals_over": "studios and the queries within them" if len(seeds) > 1 else "queries",
        "num_images": documents[0]["num_images"],
        "num_queries": documents[0]["num_queries"],
        "num_preferences": [world["label"]["num_preferences"] for world in worlds],
        "wise_ft_alpha": {mode: [w[mode]["wise_ft_alpha"] for w in worlds] for mode in ("both", "text")},
        "systems": systems,
        "nulls": [document["nulls"] for document in documents],
        "best_null": best,
        "differences": {
            name: {m: difference(of[after], of[before], m, sampling) for m in METRICS}
            for name, (after, before) in compared.comparisons(of, best).items()
        },
        "share_of_teacher_gain": {s: {AESTHETIC: share_of_gain(of, s, sampling)} for s in CHALLENGERS},
        "win_rate": win_rates(found, by_people, sampling),
        "vote_confidence": vote_confidence(documents),
        "judge_table": judge_table(found, by_people, sampling),
        "judged": [document["judged"] for document in documents],
        "sweep": {m: table(folders, f"sweep_{m}", tuple(METRICS), sampling) for m in ("both", "text")},
        "epochs": {mode: [world[mode]["epochs"] for world in worlds] for mode in ("both", "text")},
        "training": {
            mode: table(folders[:1], f"epochs_{mode}", tuple(METRICS), sampling)
            for mode in ("both", "text")
            if "epochs" in measured
        },
        "styles": styles(folders[0], sampling) if "styles" in measured else [],
        **{
            name: variants(of_seeds, name, sampling) if name in measured else []
            for name, of_seeds in (("ablations", folders[:1]), ("objectives", folders))
        },
        "captions": documents[0]["captions"],
        "judges": documents[0]["judges"],
        "teacher": documents[0]["teacher"],
        "machine": machine(),
    }


def outcomes_by_people(
    folders: Sequence[Path], found: Sequence[EvaluationTables], seeds: Sequence[int]
) -> dict[str, Outcomes]:
    """ "<challenger>_vs_<opponent>" -> how simulated people compare their results."""
    scenes = [load_scenes(folder / "studio") for folder in folders]
    studios = list(zip(found, scenes, seeds, strict=True))
    shown = {name for tables in found for name in tables.answers["system"].unique().to_pylist()}
    return {
        f"{name}_vs_{opponent}": [
            people.outcomes_in(tables, name, latents, seed=seed, opponent=opponent)
            for tables, latents, seed in studios
        ]
        for name in CHALLENGERS
        for opponent in people.OPPONENTS
        if opponent in shown
    }


def figure(groups: Sequence[Group], sampling: Mapping[str, int]) -> dict:
    """A figure of (values, weights) per seed."""
    groups = [(values[weights > 0], weights[weights > 0]) for values, weights in groups]
    if not groups or any(not len(values) for values, _ in groups):
        return {"value": None, "ci95": None, "num_queries": 0, "seeds": []}
    own = [round(over_seeds.mean_over_seeds([group]), 6) for group in groups]
    return over_seeds.over_seeds(groups, **sampling).as_dict() | {"seeds": own}


def mean(worlds: Worlds, metric: str, sampling: Mapping[str, int]) -> dict:
    """The figure of one metric of one system."""
    if not all(metric in world for world in worlds):
        return figure([], sampling)
    return figure([(world[metric].values, world[metric].weights) for world in worlds], sampling)


def difference(after: Worlds, before: Worlds, metric: str, sampling: Mapping[str, int]) -> dict:
    """After minus before over the same queries; null where a system was measured on others, as the teacher's
    recall is.
    """
    pairs = [(a.get(metric), b.get(metric)) for a, b in zip(after, before, strict=True)]
    groups = [
        (a.values - b.values, b.weights) for a, b in pairs if a and b and len(a.values) == len(b.values)
    ]
    return figure(groups if len(groups) == len(pairs) else [], sampling)


def share_of_gain(of: Mapping[str, Worlds], challenger: str, sampling: Mapping[str, int]) -> dict:
    """Share of the teacher's gain over the baseline in aesthetic@k that a challenger keeps.

    Null if the teacher gained nothing. A resample in which it gained nothing counts 0: nothing was kept.
    """
    systems = ("baseline", "teacher", challenger)
    groups = [[(w[AESTHETIC].values, w[AESTHETIC].weights) for w in of.get(s, ())] for s in systems]
    exact = [over_seeds.mean_over_seeds(each) if each else 0.0 for each in groups]
    if exact[1] <= exact[0]:
        return figure([], sampling)
    baseline, teacher, own = (over_seeds.resampled_over_seeds(each, **sampling) for each in groups)
    gain = teacher - baseline
    shares = np.divide(own - baseline, gain, out=np.zeros_like(gain), where=gain > 0)
    num_queries = sum(len(values) for values, _ in groups[0])
    share = (exact[2] - exact[0]) / (exact[1] - exact[0])
    return metrics.interval_of(share, shares, num_queries).as_dict()


def win_rates(
    found: Sequence[EvaluationTables], by_people: Mapping[str, Outcomes], sampling: Mapping[str, int]
) -> dict[str, dict]:
    """ "<challenger>_vs_<opponent>" -> by simulated people and, over the baseline, by the order-consistent
    judge: the win rate with wins, ties and losses of all seeds.
    """

    def rate(outcomes: Outcomes) -> dict:
        groups = [((own + 1) / 2, np.ones(len(own))) for own in outcomes]
        return figure(groups, sampling) | winrate.counts(np.concatenate(outcomes))

    rates = {name: {"people": rate(outcomes)} for name, outcomes in by_people.items()}
    for name in CHALLENGERS:
        margins = [tables.margins("ranker")[people.rows_of(tables, name)] for tables in found]
        rates[f"{name}_vs_baseline"]["judge"] = rate([winrate.outcomes(own) for own in margins])
    return rates


def vote_confidence(documents: Sequence[Mapping]) -> dict[str, dict]:
    """criterion -> mean over the studios of `hpir.confidence_histogram` of people's votes."""
    found = [table["confidence"] for document in documents for table in document["hpir"].values()]
    shares = {name: np.mean([one[name]["shares"] for one in found], axis=0) for name in found[0]}
    return {name: found[0][name] | {"shares": own.round(6).tolist()} for name, own in shares.items()}


def judge_table(
    found: Sequence[EvaluationTables], by_people: Mapping[str, Outcomes], sampling: Mapping[str, int]
) -> list[dict]:
    """How each protocol judges the results that differ from the baseline's, over all seeds and challengers,
    and how often it agrees with people: where they decided on the results, and by criterion on the groups of
    images that they voted on. A tie of the judge counts half.
    """
    kept, votes = [], []
    for index, tables in enumerate(found):
        rows = np.concatenate([people.rows_of(tables, name) for name in CHALLENGERS])
        voted = np.concatenate([by_people[f"{name}_vs_baseline"][index] for name in CHALLENGERS])
        differs = tables.rows["differs"].to_numpy(zero_copy_only=False)[rows]
        kept.append(rows[differs])
        votes.append(voted[differs])
    queries = [t.rows["query"].take(rows).to_pylist() for t, rows in zip(found, kept, strict=True)]

    def of_queries(values: Sequence[np.ndarray], weights: Sequence[np.ndarray] | None = None) -> dict:
        weighed = weights or [np.ones(len(own)) for own in values]
        return figure(
            [metrics.by_query(*own) for own in zip(queries, values, weighed, strict=True)], sampling
        )

    table = []
    for protocol in PROTOCOLS:
        margins = [tables.margins(protocol)[rows] for tables, rows in zip(found, kept, strict=True)]
        for consistent in (True, False):
            order = {"consistent": consistent, "seed": sampling["seed"]}
            judged = [winrate.outcomes(own, **order) for own in margins]
            by_criterion = {
                criterion: [judge_votes.agreement(t.votes, protocol, criterion, **order) for t in found]
                for criterion in judge_votes.JUDGED
            }
            agrees = [0.5 + 0.5 * own * vote for own, vote in zip(judged, votes, strict=True)]
            table.append(
                {
                    "protocol": protocol,
                    "order_consistency": consistent,
                    "win_rate": of_queries([(own + 1) / 2 for own in judged]),
                    "decided": of_queries([(own != winrate.TIE).astype(float) for own in judged]),
                    "agreement": of_queries(agrees, [(vote != winrate.TIE).astype(float) for vote in votes]),
                    "people": {name: figure(groups, sampling) for name, groups in by_criterion.items()},
                }
            )
    return table


def table(
    folders: Sequence[Path], name: str, names: Sequence[str], sampling: Mapping[str, int]
) -> list[dict]:
    """Rows of `<name>.parquet` in every seed's folder: {"name", metric: figure}; none if one is missing."""
    paths = [folder / f"{name}.parquet" for folder in folders]
    if not all(path.is_file() for path in paths):
        return []
    tables = [parquet.read_table(path) for path in paths]
    rows = []
    for row_name in dict.fromkeys(tables[0].to_pydict()["system"]):
        worlds = [values_in(one, row_name) for one in tables]
        measured = {metric: mean(worlds, metric, sampling) for metric in names}
        rows.append({"name": row_name, **{m: f for m, f in measured.items() if f["value"] is not None}})
    return rows


def styles(folder: Path, sampling: Mapping[str, int]) -> list[dict]:
    """The rephrasing styles, on one studio."""
    reports = json.loads((folder / "styles.json").read_text())
    rows = table([folder], "styles", tuple(STYLE_METRICS), sampling)
    return [row | reports[row["name"]] for row in rows]


def variants(folders: Sequence[Path], name: str, sampling: Mapping[str, int]) -> list[dict]:
    """Text towers aligned with one variant each."""
    names = (AESTHETIC, PRECISION, "recall@1", RECALL, "hpir_aesthetic", "hpir_accuracy")
    reports = json.loads((folders[0] / f"{name}.json").read_text())
    return [reports[row["name"]] | row for row in table(folders, name, names, sampling)]
