"""Measures how well people's votes on photographs can be predicted.

    kallos photographs --folder ../shared/data/oasis_beauty

Every figure is the share of pairs on which a method agrees with the majority of people. For the 377
photographs of OASIS (Kurdi, Lozano and Banaji 2017) with the ratings of Brielmann and Pelli (2019), an
independent measurement gave a floor of 0.591 for pairs of one category and 0.564 for pairs of one subject
(ridge regression on colour and edge features), and a ceiling of 0.763 and 0.678 (one rater against the
majority of the others).
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from actors.encoder import Encoder
from cluster import command
from cluster.tables import now
from lab.machine import machine
from lab.photographs import page
from lab.photographs.agreement import agreement_per_pair, one_rater_against_others, summarise
from lab.photographs.config import PhotographsConfig
from lab.photographs.dataset import SCOPES, RatedPhotographs, check_scopes, folds, read_photographs
from lab.photographs.features import all_features
from lab.photographs.methods import METHODS, REFERENCES, all_scores


def make_report(
    rated: RatedPhotographs, scores: Mapping[str, np.ndarray], *, num_resamples: int, seed: int
) -> dict:
    """The report of held-out scores, method -> float [S, P, 2]; every entry has a figure for each scope."""
    agreements = {name: agreement_per_pair(rated, found) for name, found in scores.items()}
    agreements["ceiling"] = one_rater_against_others(rated.votes)
    bootstrap = {"num_resamples": num_resamples, "seed": seed}

    def figure(name: str, scope: str) -> dict:
        gain = summarise(rated, agreements[name] - agreements["floor"], scope, **bootstrap)
        runs = [agreement_per_pair(rated, run[None]) for run in scores.get(name, [])]
        of_runs = [summarise(rated, run, scope, **bootstrap)["value"] for run in runs]
        return {
            **summarise(rated, agreements[name], scope, **bootstrap),
            "minus_floor": {key: gain[key] for key in ("value", "ci95")},
            "seeds": of_runs if len(of_runs) > 1 else [],
        }

    def entry(name: str) -> dict:
        description = (METHODS | REFERENCES)[name]
        return {"name": name, "what": description, **{scope: figure(name, scope) for scope in SCOPES}}

    return {
        "num_photographs": len(rated.files),
        "held_out": [fold.name for fold in folds(rated)],
        "interval": "percentile bootstrap over photographs within their rater groups, 95 %",
        **{name: entry(name) for name in REFERENCES},
        "methods": [entry(name) for name in METHODS if name in scores],
    }


def run(config: PhotographsConfig) -> dict:
    """Run the whole measurement and return the content of report.json.

    Raises UserError like `read_photographs`, and for a photograph that cannot be read.
    """
    start = time.monotonic()
    rated = read_photographs(config.folder)
    command.output_folder(config.out)
    check_scopes(rated)
    profile, _ = command.settings(config)
    encoder = Encoder.load(profile.encoder.model, precision=profile.encoder.precision)
    seeds = range(config.seed, config.seed + config.num_seeds)
    scores = all_scores(rated, encoder, all_features(encoder, rated), seeds)
    report = make_report(rated, scores, num_resamples=config.num_resamples, seed=config.seed)
    report["machine"], report["created_at"] = machine(), now().isoformat(timespec="seconds")
    report["seconds"] = round(time.monotonic() - start, 1)
    folder = Path(config.out)
    command.save_config(config, folder)
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page.page(report), encoding="utf-8")
    return report | {"report": str(folder / "report.html")}
