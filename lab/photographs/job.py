"""Learns from one rater group's photographs and is measured on the other's, each way round.

Every figure is the share of pairs whose majority a method agrees with. On the 377 photographs of OASIS
(Kurdi, Lozano and Banaji 2017) with the ratings of Brielmann and Pelli (2019), in pairs of one category and
of one subject, a measurement with other code gave a floor of 0.591 and 0.564 (ridge regression on hand-made
colour and edge features) and a ceiling of 0.763 and 0.678 (one rater against the majority of the others).

Regularisation is chosen by leave-one-out error, and DPO's last step by photographs set aside, both inside the
group learned from. The kinds of features and kernels were compared on both groups, which flatters the best.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cluster import command
from cluster.errors import UserError
from cluster.tables import now
from lab.machine import machine
from lab.photographs import votes
from lab.photographs.config import PhotographsConfig
from lab.photographs.votes import Fold, Panel

if TYPE_CHECKING:
    from PIL.Image import Image

    from actors.encoder import Encoder

PROMPTS = ("beautiful, award winning photo", "bad photo, ugly")
ALPHAS = np.logspace(-2, 4, 25)
WHAT = {
    "floor": "ridge regression on colour and edge statistics",
    "ceiling": "one rater against the majority of the others",
    "subject": "not a fair method: the mean rating of other photographs whose subject has the same name",
    "query": "the encoder untouched: cosine of the image with the pair's query",
    "prompts": f"the encoder untouched: nearer to {PROMPTS[0]!r} than to {PROMPTS[1]!r}",
    "frozen": "ridge regression on statistics of the encoder's frozen stages",
    "dpo_text": "DPO on the votes, the text tower alone: cosine with the pair's query",
    "dpo_both": "DPO on the votes, both towers: cosine with the pair's query",
    "kernel": "colour and edge statistics with Gaussian kernels",
    "combination": "Gaussian kernels on colour and edge statistics and on the encoder's frozen stages",
}
METHODS = ("query", "prompts", "frozen", "dpo_text", "dpo_both", "kernel", "combination")


class Features(NamedTuple):
    """What is known of N photographs before anything is learned."""

    hand: list[np.ndarray]  # colour, hues and edges, float [N, D] each
    stages: list[np.ndarray]  # of the whole picture, float [N, D] each
    pixels: np.ndarray  # as the encoder takes them, uint8 [N, 3, H, W]
    vectors: np.ndarray  # float32 [N, D], L2-normalised


def ridge_scores(
    families: Sequence[Sequence[np.ndarray]], ratings: np.ndarray, fold: Fold, *, gaussian: bool = False
) -> np.ndarray:
    """Ridge regression of the ratings, float [N], on blocks of features, float [N, D] each; gives float [N].

    Blocks are standardised on the photographs learned from; families have the same say, and so have the
    blocks of one; the ridge is chosen by leave-one-out error. `gaussian` puts a Gaussian kernel on each
    block: its width follows from D, and Nystroem with every photograph learned from as a landmark is exact.
    """
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    parts = []
    for family in families:
        for block in family:
            part = StandardScaler().fit(block[fold.learn]).transform(block) / np.sqrt(block.shape[1])
            if gaussian:
                kernel = Nystroem(gamma=0.5, n_components=len(fold.learn), random_state=0)
                part = kernel.fit(part[fold.learn]).transform(part)
            parts.append(part / np.sqrt(len(family)))
    features = np.hstack(parts)
    return RidgeCV(ALPHAS).fit(features[fold.learn], ratings[fold.learn]).predict(features)


def all_scores(panel: Panel, config: PhotographsConfig) -> dict[str, np.ndarray]:
    """Method -> held-out scores, float [S, P, 2]; S is 1 where nothing is random."""
    from actors.scorers import PromptPairs
    from lab.photographs import learn

    encoder, features = _features(panel, config)
    ratings, (hand, stages, pixels, vectors) = panel.ratings, features
    prompts = PromptPairs.of(encoder.encode_texts, encoder.temperature, (PROMPTS,))
    steady = {
        "floor": lambda fold: ridge_scores([[np.hstack(hand)]], ratings, fold),
        "subject": lambda fold: votes.subject_scores(panel, fold),
        "query": lambda _: learn.query_scores(encoder, vectors, panel),
        "prompts": lambda _: prompts.score(vectors),
        "frozen": lambda fold: ridge_scores([stages], ratings, fold),
        "kernel": lambda fold: ridge_scores([hand], ratings, fold, gaussian=True),
        "combination": lambda fold: ridge_scores([hand, stages], ratings, fold, gaussian=True),
    }
    scores = {name: votes.held_out(panel, method)[None] for name, method in steady.items()}
    for mode in ("text", "both"):
        repeated = []
        for seed in range(config.seed, config.seed + config.num_seeds):
            print(f"DPO, mode {mode}, seed {seed}", file=sys.stderr, flush=True)
            options = {"mode": mode, "recipe": learn.Recipe(), "seed": seed}
            repeated.append(
                votes.held_out(panel, lambda fold, o=options: learn.align(encoder, pixels, panel, fold, **o))
            )
        scores[f"dpo_{mode}"] = np.stack(repeated)
    return scores


def _features(panel: Panel, config: PhotographsConfig) -> tuple["Encoder", Features]:
    """The profile's encoder, and what it and the statistics say of every photograph."""
    from dataclasses import replace

    from actors.encoder import Encoder
    from actors.images import pixels as fitted
    from cluster.profile import load_profile
    from lab.photographs import learn

    profile = load_profile(config.profile).encoder
    num_gpus = profile.stage.num_gpus
    encoder = Encoder.load(profile.model, precision=profile.precision, num_gpus=num_gpus)
    whole = replace(encoder.fit, resize_mode="squash")  # a crop to the middle loses what stands at the sides
    photographs = [_decoded(panel.folder / name) for name in panel.files]
    hand = [np.stack(block) for block in zip(*map(learn.hand_features, photographs), strict=True)]
    pixels = np.stack([encoder.pixels(photograph) for photograph in photographs])
    squashed = np.stack([fitted(photograph, whole) for photograph in photographs])
    stages = learn.stage_features(encoder, squashed)
    return encoder, Features(hand, stages, pixels, learn.encode(encoder, pixels))


def _decoded(path: Path) -> "Image":
    from actors.images import UnusableImage, decode, read_uri

    try:
        return decode(read_uri(str(path)))
    except UnusableImage as error:
        raise UserError(f"photograph {str(path)!r} {error}") from error


def summarise(panel: Panel, scores: Mapping[str, np.ndarray], config: PhotographsConfig) -> dict:
    """The report of held-out scores [S, P, 2]: see the module; every entry has a figure per scope."""
    bootstrap = {"num_resamples": config.num_resamples, "seed": config.seed}
    agrees = {name: votes.agreements(panel, found) for name, found in scores.items()}
    agrees["ceiling"] = votes.one_against_others(panel.votes)

    def entry(name: str) -> dict:
        figures = {}
        for scope in votes.SCOPES:
            figures[scope] = votes.figure(panel, agrees[name], scope, **bootstrap)
            gain = votes.figure(panel, agrees[name] - agrees["floor"], scope, **bootstrap)
            figures[scope]["minus_floor"] = {key: gain[key] for key in ("value", "ci95")}
            each = [votes.agreements(panel, one[None]) for one in scores.get(name, [])]
            of_seeds = [votes.figure(panel, one, scope, **bootstrap)["value"] for one in each]
            figures[scope]["seeds"] = of_seeds if len(of_seeds) > 1 else []
        return {"name": name, "what": WHAT[name], **figures}

    report = {
        "num_photographs": len(panel.files),
        "held_out": [fold.name for fold in votes.folds(panel)],
        "interval": "percentile bootstrap over photographs within their rater groups, 95 %",
        "floor": entry("floor"),
        "ceiling": entry("ceiling"),
        "subject": entry("subject"),
        "methods": [entry(name) for name in METHODS if name in scores],
    }
    return {**report, "conclusions": conclusions(report)}


def conclusions(report: Mapping) -> list[str]:
    """Plain sentences on what an encoder that never saw a photograph can and cannot learn from these."""
    methods = {entry["name"]: entry for entry in report["methods"]}
    category, subject = votes.SCOPES
    above = [name for name, entry in methods.items() if _clear(entry[category]["minus_floor"], 0)]
    apart = [name for name, entry in methods.items() if _clear(entry[subject], 0.5)]
    said = [
        "What a few hundred rated photographs teach is how colour, light and texture go with beauty: "
        f"{_figure(report['floor'], category)} between photographs of one category, without any encoder.",
        f"Clearly above that: {', '.join(above) or 'none'}. Other differences lie inside their intervals.",
        "They cannot teach what a photograph shows. To know the name of the subject, and how others of that "
        f"name were rated, is worth {_figure(report['subject'], category)}, and one person's own eye "
        f"{_figure(report['ceiling'], category)}: an encoder has to bring that from many more photographs.",
        f"Between photographs of one subject, clearly better than chance: {', '.join(apart) or 'none'}.",
    ]
    if "query" in methods:
        worth = _figure(methods["query"], category)
        said.insert(0, f"Drawings and their captions alone taught the encoder {worth}; chance is 0.5.")
    return said


def _clear(figure: Mapping, level: float) -> bool:
    return bool(figure["ci95"]) and figure["ci95"][0] > level


def _figure(entry: Mapping, scope: str) -> str:
    value, ci95 = entry[scope]["value"], entry[scope]["ci95"]
    return "nothing measured" if value is None else f"{value:.3f} ({ci95[0]:.3f} to {ci95[1]:.3f})"


def run(config: PhotographsConfig) -> dict:
    """Run the whole measurement and return the content of report.json.

    Raises UserError like `read_panel`.
    """
    from lab.photographs import page

    start = time.monotonic()
    folder = Path(config.out)
    panel = votes.read_panel(config.folder)
    report = summarise(panel, all_scores(panel, config), config)
    report["machine"], report["created_at"] = machine(), now().isoformat(timespec="seconds")
    report["seconds"] = round(time.monotonic() - start, 1)
    command.save_config(config, folder)
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page.page(report), encoding="utf-8")
    return report | {"report": str(folder / "report.html")}
