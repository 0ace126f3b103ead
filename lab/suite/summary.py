"""The suite's report.json: every figure over several studios, from the files of their evaluations.

A figure is {"value", "ci95", "num_queries", "seeds"}: the mean over seeds, its bootstrap interval over the
queries of all seeds, and each seed's own value.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import parquet

from jobs.evaluate.config import CHALLENGERS, PROTOCOLS, SYSTEMS
from jobs.evaluate.figures import metrics, protocols, winrate
from jobs.evaluate.figures.per_query import QueryValues
from jobs.evaluate.figures.registry import AESTHETIC, METRICS, PRECISION, RECALL
from jobs.evaluate.output_files import EvaluationTables
from lab.evaluation_files import read_document, read_tables, values_in
from lab.machine import machine
from lab.studio.truth import load_scenes
from lab.suite import over_seeds, people
from lab.suite.config import SuiteConfig
from lab.suite.styles import ACCURATE_BEAUTY

Worlds = Sequence[Mapping[str, QueryValues]]  # one per seed: metric -> values by query
Outcomes = Sequence[Mapping[str, np.ndarray]]  # one per seed: challenger -> WIN, TIE or LOSS, int [Q]


def document(folder: Path, seeds: Sequence[int], config: SuiteConfig, compared: Sequence[str]) -> dict:
    """The content of report.json, without targets, versions and times; `compared`: its tables of variants."""
    sampling = {"num_resamples": config.num_resamples, "seed": config.seed}
    folders = [folder / f"seed{seed}" for seed in seeds]
    found = [read_tables(one / "evaluate") for one in folders]
    documents = [read_document(one / "evaluate") for one in folders]
    worlds = [json.loads((one / "world.json").read_text()) for one in folders]
    by_people = [people_outcomes(*one) for one in zip(folders, found, seeds, strict=True)]
    series = {system: [values_in(tables.series, system) for tables in found] for system in SYSTEMS}
    of = {system: worlds for system, worlds in series.items() if all(worlds)}
    return {
        "suite": config.kind,
        "seeds": list(seeds),
        "num_images": documents[0]["num_images"],
        "num_queries": documents[0]["num_queries"],
        "num_preferences": [world["label"]["num_preferences"] for world in worlds],
        "wise_ft_alpha": worlds[0]["both"]["wise_ft_alpha"],
        "metrics": {s: {m: mean(of[s], m, sampling) for m in METRICS} for s in of},
        "difference": {
            name: {m: difference(of[name], of["baseline"], m, sampling) for m in METRICS}
            for name in CHALLENGERS
        },
        "gain": gains(of, sampling),
        "win_rate": {name: win_rates(found, by_people, name, sampling) for name in CHALLENGERS},
        "judge_table": judge_table(found, by_people, sampling),
        "judged": [document["judged"] for document in documents],
        "sweep": {m: table(folders, f"sweep_{m}", tuple(METRICS), sampling) for m in ("both", "text")},
        "epochs": {mode: [world[mode]["epochs"] for world in worlds] for mode in ("both", "text")},
        "training": {
            mode: table(folders[:1], f"epochs_{mode}", tuple(METRICS), sampling) for mode in ("both", "text")
        },
        "styles": styles(folders[0], sampling),
        **{
            name: variants(of_seeds, name, sampling) if name in compared else []
            for name, of_seeds in (("ablations", folders[:1]), ("objectives", folders))
        },
        "captions": documents[0]["captions"],
        "teacher": documents[0]["teacher"],
        "machine": machine(),
    }


def people_outcomes(folder: Path, found: EvaluationTables, seed: int) -> dict[str, np.ndarray]:
    """challenger -> how simulated people compare its results with the baseline's."""
    latents = load_scenes(folder / "studio")
    return {name: people.outcomes_in(found, name, latents, seed=seed) for name in CHALLENGERS}


def figure(groups: Sequence[tuple[np.ndarray, np.ndarray]], sampling: Mapping[str, int]) -> dict | None:
    """A figure of (values, weights) per seed; None if it was not measured for every seed."""
    if not groups or any(not len(values) or not np.sum(weights) for values, weights in groups):
        return None
    own = [round(float(values @ weights / weights.sum()), 6) for values, weights in groups]
    return over_seeds.over_seeds(groups, **sampling).as_dict() | {"seeds": own}


def mean(worlds: Worlds, metric: str, sampling: Mapping[str, int]) -> dict | None:
    """The figure of one metric of one system."""
    present = [world[metric] for world in worlds if metric in world]
    if len(present) < len(worlds):
        return None
    return figure([(series.values, series.weights) for series in present], sampling)


def difference(after: Worlds, before: Worlds, metric: str, sampling: Mapping[str, int]) -> dict | None:
    """After minus before over the same queries, and the p-value of a paired sign-flip test of all seeds."""
    pairs = [(a[metric], b[metric]) for a, b in zip(after, before, strict=True) if metric in a]
    if len(pairs) < len(before):
        return None
    groups = [(a.values - b.values, b.weights) for a, b in pairs]
    # All seeds have the same weight in the mean, so also in the test.
    values, weights = (np.concatenate(column) for column in zip(*groups, strict=True))
    share = np.concatenate([w / w.sum() for _, w in groups])
    p_value = metrics.sign_flip_p(values, np.where(weights > 0, share, 0.0), **sampling)
    return (figure(groups, sampling) or {}) | {"p_value": p_value}


def gains(of: Mapping[str, Worlds], sampling: Mapping[str, int]) -> dict:
    """The teacher's relative gain over the baseline in aesthetic@k, and each challenger's share of it."""
    drawn = {
        system: over_seeds.resampled_over_seeds(
            [(world[AESTHETIC].values, world[AESTHETIC].weights) for world in worlds], **sampling
        )
        for system, worlds in of.items()
    }
    exact = {s: float(np.mean([w[AESTHETIC].values.mean() for w in worlds])) for s, worlds in of.items()}
    num_queries = sum(len(world[AESTHETIC].values) for world in of["baseline"])

    def ratio(of_systems: Callable[[Mapping], Any]) -> dict:
        with np.errstate(divide="ignore", invalid="ignore"):  # a resample in which nothing was gained
            resamples = of_systems(drawn)
        kept = resamples[np.isfinite(resamples)]
        return metrics.interval_of(of_systems(exact), kept, num_queries).as_dict()

    found = {"teacher_over_baseline": ratio(lambda m: m["teacher"] / m["baseline"] - 1.0)}
    for name in CHALLENGERS:
        found[f"share_{name}"] = ratio(
            lambda m, n=name: (m[n] - m["baseline"]) / (m["teacher"] - m["baseline"])
        )
    return found


def win_rates(
    found: Sequence[EvaluationTables], by_people: Outcomes, challenger: str, sampling: Mapping[str, int]
) -> dict:
    """By the order-consistent judge and by simulated people, with wins, ties and losses of all seeds."""
    by_judge = [
        winrate.outcomes(tables.margins("ranker")[people.rows_of(tables, challenger)]) for tables in found
    ]
    outcomes = {"judge": by_judge, "people": [of_seed[challenger] for of_seed in by_people]}
    return {
        who: (figure([((o + 1) / 2, np.ones(len(o))) for o in of_seeds], sampling) or {})
        | winrate.counts(np.concatenate(of_seeds))
        for who, of_seeds in outcomes.items()
    }


def judge_table(
    found: Sequence[EvaluationTables], by_people: Outcomes, sampling: Mapping[str, int]
) -> list[dict]:
    """How each protocol judges the results that differ, over all seeds and challengers, and how often it
    agrees with people where they decided; a tie of the judge counts half.
    """
    kept = [np.flatnonzero(tables.rows["differs"].to_numpy(zero_copy_only=False)) for tables in found]
    queries = [
        f"{index} {query}"  # the same words in two studios are two queries
        for index, (tables, rows) in enumerate(zip(found, kept, strict=True))
        for query in tables.rows["query"].take(rows).to_pylist()
    ]
    margins = {
        protocol: np.concatenate([t.margins(protocol)[rows] for t, rows in zip(found, kept, strict=True)])
        for protocol in PROTOCOLS
    }
    votes = np.concatenate(
        [
            np.concatenate([of_seed[name] for name in _challengers(tables)])[rows]
            for tables, of_seed, rows in zip(found, by_people, kept, strict=True)
        ]
    )
    table = protocols.table(queries, margins, **sampling)
    for row in table:
        consistent, seed = row["order_consistency"], sampling["seed"]
        judged = winrate.outcomes(margins[row["protocol"]], consistent=consistent, seed=seed)
        decided = (votes != winrate.TIE).astype(float)
        row["agreement"] = protocols.share(queries, 0.5 + 0.5 * judged * votes, decided, **sampling)
    return table


def _challengers(found: EvaluationTables) -> list[str]:
    """The challengers in the order of their rows."""
    return list(dict.fromkeys(found.rows.to_pydict()["challenger"]))


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
        rows.append({"name": row_name, **{m: f for m, f in measured.items() if f is not None}})
    return rows


def styles(folder: Path, sampling: Mapping[str, int]) -> list[dict]:
    """The rephrasing styles, on one studio."""
    names = (PRECISION, AESTHETIC, ACCURATE_BEAUTY.key)
    reports = json.loads((folder / "styles.json").read_text())
    return [row | reports[row["name"]] for row in table([folder], "styles", names, sampling)]


def variants(folders: Sequence[Path], name: str, sampling: Mapping[str, int]) -> list[dict]:
    """Text towers aligned with one variant each."""
    names = (AESTHETIC, PRECISION, "recall@1", RECALL, "hpir_aesthetic", "hpir_accuracy")
    reports = json.loads((folders[0] / f"{name}.json").read_text())
    return [reports[row["name"]] | row for row in table(folders, name, names, sampling)]
