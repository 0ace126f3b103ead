"""The suite's report.json: every figure over several studios, from what their evaluations left.

A figure is {"value", "ci95", "num_queries", "seeds"}: the mean over seeds, its bootstrap interval over the
queries of all seeds, and each seed's own value.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pyarrow import parquet

from jobs.evaluate.config import CHALLENGERS, SYSTEMS, TOP_K, EvaluateConfig
from jobs.evaluate.figures import metrics, per_query, protocols, winrate
from jobs.evaluate.output_files import Saved, read, read_document, series_in
from lab.machine import machine

AESTHETIC = f"aesthetic@{TOP_K}"
Worlds = Sequence[Mapping[str, per_query.Series]]  # one per seed: metric -> values by query


def document(folder: Path, seeds: Sequence[int], config: EvaluateConfig, compared: Sequence[str]) -> dict:
    """The content of report.json, without versions and times; `compared`: the tables of variants in it."""
    sampling = {"num_resamples": config.num_resamples, "seed": config.seed}
    found = [read(folder / f"seed{seed}" / "evaluate") for seed in seeds]
    documents = [read_document(folder / f"seed{seed}" / "evaluate") for seed in seeds]
    worlds = [json.loads((folder / f"seed{seed}" / "world.json").read_text()) for seed in seeds]
    of = {system: [saved.series_of(system) for saved in found] for system in SYSTEMS}
    measured = {s: {m: mean(of[s], m, sampling) for m in per_query.HEADLINE} for s in SYSTEMS}
    report = {
        "suite": config.suite,
        "seeds": list(seeds),
        "num_images": documents[0]["num_images"],
        "num_queries": documents[0]["num_queries"],
        "num_preferences": [world["label"]["num_preferences"] for world in worlds],
        "wise_ft_alpha": worlds[0]["both"]["wise_ft_alpha"],
        "metrics": measured,
        "difference": {
            challenger: {
                m: difference(of[challenger], of["baseline"], m, sampling) for m in per_query.HEADLINE
            }
            for challenger in CHALLENGERS
        },
        "gain": gains(of, sampling),
        "win_rate": {c: win_rates(found, c, sampling) for c in CHALLENGERS},
        "judge_table": judge_table(found, sampling),
        "judged": [document["judged"] for document in documents],
        "sweep": {
            mode: table(folder, seeds, f"sweep_{mode}.parquet", per_query.HEADLINE, sampling)
            for mode in ("both", "text")
        },
        "epochs": {mode: [world[mode]["epochs"] for world in worlds] for mode in ("both", "text")},
        "training": {
            mode: table(folder, seeds[:1], f"epochs_{mode}.parquet", per_query.HEADLINE, sampling)
            for mode in ("both", "text")
        },
        "styles": styles(folder, seeds[0], sampling),
        **{
            name: ablations(folder, of_seeds, name, sampling) if name in compared else []
            for name, of_seeds in (("ablations", seeds[:1]), ("objectives", seeds))
        },
        "captions": documents[0]["captions"],
        "teacher": documents[0]["teacher"],
        "machine": machine(),
    }
    return report | {"targets": targets(report)}


def figure(groups: Sequence[tuple[np.ndarray, np.ndarray]], sampling: Mapping[str, int]) -> dict | None:
    """A figure of (values, weights) per seed; None where a seed has not measured it."""
    if not groups or any(not len(values) or not np.sum(weights) for values, weights in groups):
        return None
    own = [round(float(values @ weights / weights.sum()), 6) for values, weights in groups]
    return metrics.over_seeds(groups, **sampling).as_dict() | {"seeds": own}


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
    # Each seed counts alike in the mean, and so in the test.
    values, weights = (np.concatenate(column) for column in zip(*groups, strict=True))
    share = np.concatenate([w / w.sum() for _, w in groups])
    p_value = metrics.sign_flip_p(values, np.where(weights > 0, share, 0.0), **sampling)
    return (figure(groups, sampling) or {}) | {"p_value": p_value}


def gains(of: Mapping[str, Worlds], sampling: Mapping[str, int]) -> dict:
    """What the teacher gains on the baseline in aesthetic@k, relative, and each challenger's share of it."""
    drawn = {
        system: metrics.resampled_over_seeds(
            [(world[AESTHETIC].values, world[AESTHETIC].weights) for world in worlds], **sampling
        )
        for system, worlds in of.items()
    }
    exact = {s: float(np.mean([w[AESTHETIC].values.mean() for w in worlds])) for s, worlds in of.items()}
    num_queries = sum(len(world[AESTHETIC].values) for world in of["baseline"])

    def ratio(of_systems: Callable[[Mapping], float | np.ndarray]) -> dict:
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


def _of_challenger(saved: Saved, challenger: str) -> np.ndarray:
    return np.flatnonzero(np.array(saved.rows["challenger"].to_pylist()) == challenger)


def win_rates(found: Sequence[Saved], challenger: str, sampling: Mapping[str, int]) -> dict:
    """By the order-consistent judge and by simulated people, with wins, ties and losses of all seeds."""
    outcomes: dict[str, list[np.ndarray]] = {"judge": [], "people": []}
    for saved in found:
        rows = _of_challenger(saved, challenger)
        outcomes["judge"].append(winrate.outcomes(saved.margins("ranker")[rows]))
        outcomes["people"].append(saved.rows["people"].to_numpy()[rows])
    return {
        who: (figure([((o + 1) / 2, np.ones(len(o))) for o in seen], sampling) or {})
        | {
            name: int(sum((o == outcome).sum() for o in seen))
            for name, outcome in {"wins": winrate.WIN, "ties": winrate.TIE, "losses": winrate.LOSS}.items()
        }
        for who, seen in outcomes.items()
    }


def judge_table(found: Sequence[Saved], sampling: Mapping[str, int]) -> list[dict]:
    """How each protocol judges the rows that differ, all seeds' and challengers' together."""
    kept = [np.flatnonzero(saved.rows["differs"].to_numpy(zero_copy_only=False)) for saved in found]
    people = np.concatenate([s.rows["people"].to_numpy()[rows] for s, rows in zip(found, kept, strict=True)])
    queries = [
        f"{number} {query}"  # the same words in two studios are two queries
        for number, (s, rows) in enumerate(zip(found, kept, strict=True))
        for query in s.rows["query"].take(rows).to_pylist()
    ]
    margins = {
        protocol: np.concatenate([s.margins(protocol)[rows] for s, rows in zip(found, kept, strict=True)])
        for protocol in protocols.PROTOCOLS
    }
    return protocols.table(queries, margins, people, **sampling)


def table(
    folder: Path, seeds: Sequence[int], name: str, names: Sequence[str], sampling: Mapping[str, int]
) -> list[dict]:
    """Rows of a table of series in every seed's folder: {"name", metric: figure}; none where it lacks."""
    paths = [folder / f"seed{seed}" / name for seed in seeds]
    if not all(path.is_file() for path in paths):
        return []
    tables = [parquet.read_table(path) for path in paths]
    systems = dict.fromkeys(tables[0]["system"].to_pylist())
    rows = []
    for system in systems:
        worlds = [series_in(one, system) for one in tables]
        measured = {metric: mean(worlds, metric, sampling) for metric in names}
        rows.append({"name": system, **{m: f for m, f in measured.items() if f is not None}})
    return rows


def styles(folder: Path, seed: int, sampling: Mapping[str, int]) -> list[dict]:
    """The rephrasing styles, on the first studio."""
    names = (f"precision@{TOP_K}", AESTHETIC, "aesthetics_of_accurate")
    told = json.loads((folder / f"seed{seed}" / "styles.json").read_text())
    return [
        row | {k: v for k, v in told[row["name"]].items()}
        for row in table(folder, [seed], "styles.parquet", names, sampling)
    ]


def ablations(folder: Path, seeds: Sequence[int], name: str, sampling: Mapping[str, int]) -> list[dict]:
    """Text towers aligned one way and another."""
    names = (AESTHETIC, f"precision@{TOP_K}", "recall@1", "recall@10", "hpir_aesthetic", "hpir_accuracy")
    rows = table(folder, seeds, f"{name}.parquet", names, sampling)
    told = json.loads((folder / f"seed{seeds[0]}" / f"{name}.json").read_text())
    return [told[row["name"]] | row for row in rows]


def targets(report: Mapping) -> list[dict]:
    """What alignment has to reach on the studio, and what it reached: quantity, target, value, ci95, met."""
    wanted: list[tuple[str, float, dict | None]] = [
        ("win rate of aligned over baseline, judge", 0.70, report["win_rate"]["aligned"]["judge"]),
        ("win rate of aligned over baseline, people", 0.70, report["win_rate"]["aligned"]["people"]),
        ("teacher over baseline in aesthetic@5, relative", 0.25, report["gain"]["teacher_over_baseline"]),
        ("share of that gain, mode both", 0.80, report["gain"]["share_aligned"]),
        ("share of that gain, mode text", 0.60, report["gain"]["share_text"]),
        ("HPIR aesthetics, aligned - baseline", 0.10, report["difference"]["aligned"]["hpir_aesthetic"]),
        ("recall@1, aligned - baseline", -0.01, report["difference"]["aligned"]["recall@1"]),
        ("recall@10, aligned - baseline", -0.01, report["difference"]["aligned"]["recall@10"]),
        ("zero-shot accuracy, aligned - baseline", -0.01, report["difference"]["aligned"]["zero_shot"]),
    ]
    before, after = (report["metrics"][s]["vendi@10"] for s in ("baseline", "aligned"))
    if before and after:
        ratio = {"value": round(after["value"] / before["value"], 6), "ci95": None}
        wanted.append(("Vendi score of the top ten, aligned / baseline", 0.90, ratio))
    return [
        {
            "quantity": quantity,
            "target": target,
            "value": found["value"],
            "ci95": found["ci95"],
            "met": bool(found["value"] >= target),
        }
        for quantity, target, found in wanted
        if found and found.get("value") is not None
    ]
