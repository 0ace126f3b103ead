"""People's votes on photographs: folds, agreement, the ceiling, and the methods that predict votes."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from actors.encoder import Encoder
from cluster.errors import UserError
from cluster.profile import ROOT
from jobs.evaluate.hpir import Votes
from lab.machine import machine
from lab.photographs import agreement, features, methods, page
from lab.photographs.dataset import Fold, RatedPhotographs, check_scopes, folds, read_photographs
from lab.photographs.job import make_report
from lab.photographs.votes_training import TrainingOptions, align_with_votes, cropped

REAL = Path(os.environ.get("KALLOS_PHOTOGRAPHS", ROOT.parent / "shared" / "data" / "oasis_beauty"))
# file, subject, category, group, rating: the last photograph of each group is the most beautiful.
PHOTOGRAPHS = [
    (f"images/{group}{index}.png", f"subject{index}", "Object", group, 1.0 + index)
    for group in ("one", "two")
    for index in range(4)
]
# query, scope, A, B, votes for A, for B, ties, group
PAIRS = [
    ("object", "same_category", "images/one0.png", "images/one1.png", 1, 3, 4, "one"),
    ("object", "same_category", "images/one2.png", "images/one1.png", 6, 2, 0, "one"),
    ("cup", "same_subject", "images/one3.png", "images/one0.png", 2, 2, 4, "one"),
    ("object", "same_category", "images/two0.png", "images/two3.png", 0, 4, 0, "two"),
    ("cup", "same_subject", "images/two1.png", "images/two2.png", 1, 2, 1, "two"),
]
METADATA_HEAD = ("file", "subject", "category", "rater_group", "beauty_mean")
PAIRS_HEAD = ("query", "scope", "file_a", "file_b", "n_prefer_a", "n_prefer_b", "n_tie", "rater_group")


def write(folder: Path, photographs=PHOTOGRAPHS, pairs=PAIRS) -> str:
    for name, head, rows in (("metadata", METADATA_HEAD, photographs), ("pairs", PAIRS_HEAD, pairs)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([head, *rows])
    return str(folder)


@pytest.fixture
def rated(tmp_path) -> RatedPhotographs:
    return read_photographs(write(tmp_path))


def scores_of(rated: RatedPhotographs, values) -> np.ndarray:
    return np.asarray(values, float)[rated.pairs][None]


def test_both_tables_of_a_folder_are_read(rated):
    assert rated.files[5] == "images/two1.png" and rated.ratings[5] == 2.0
    assert rated.pairs.tolist() == [[0, 1], [2, 1], [3, 0], [4, 7], [5, 6]]
    assert rated.votes[0] == Votes(1, 3, 4)
    assert rated.pair_groups.tolist() == ["one", "one", "one", "two", "two"]


@pytest.mark.parametrize(
    ("photographs", "pairs", "message"),
    [
        (PHOTOGRAPHS, [(*PAIRS[0][:3], "images/two1.png", *PAIRS[0][4:])],
         "'images/one0.png' with 'images/two1.png'"),
        (PHOTOGRAPHS, [(*PAIRS[0][:-1], "two")], "the rater_group of the pair"),
        (PHOTOGRAPHS, [(*PAIRS[0][:3], "images/x.png", *PAIRS[0][4:])], "names 'images/x.png'"),
        (PHOTOGRAPHS, [("object", "nearby", *PAIRS[0][2:])], "the scope 'nearby'"),
        (PHOTOGRAPHS[:4], PAIRS[:3], "only one rater_group"),
    ],
)  # fmt: skip
def test_inconsistent_tables_are_refused(tmp_path, photographs, pairs, message):
    with pytest.raises(UserError, match=message):
        read_photographs(write(tmp_path, photographs, pairs))


def test_error_names_the_missing_column_or_photograph(tmp_path):
    folder = write(tmp_path)
    (tmp_path / "metadata.csv").write_text("file,subject\nimages/one0.png,cup\n")
    with pytest.raises(UserError, match=r"lacks the column\(s\) category, rater_group, beauty_mean"):
        read_photographs(folder)
    with pytest.raises(UserError, match=r"absent\.png"):
        features.decoded(tmp_path / "absent.png")


def test_folds_are_disjoint_and_hold_out_each_photograph_once(rated):
    both = list(folds(rated))
    assert [fold.name for fold in both] == ["one", "two"]
    for fold in both:
        assert not set(fold.train) & set(fold.held_out)
        assert sorted([*fold.train, *fold.held_out]) == list(range(8))
        assert set(rated.groups[fold.held_out]) == {fold.name}
        assert fold.name not in rated.groups[fold.train]
    assert sorted(np.concatenate([fold.held_out for fold in both])) == list(range(8))


def test_every_pair_is_scored_by_the_fold_that_holds_its_group_out(rated):
    constant = {"one": 10.0, "two": 20.0}
    found = agreement.held_out_scores(rated, lambda fold: np.full(8, constant[fold.name]))
    assert found[:, 0].tolist() == [10, 10, 10, 20, 20]
    per_pair = agreement.held_out_scores(rated, lambda fold: np.full((5, 2), constant[fold.name]))
    assert per_pair.tolist() == found.tolist()


def test_agreement_with_tied_votes_and_tied_scores(rated):
    values = agreement.agreement_per_pair(rated, scores_of(rated, [0, 1, 1, 9, 5, 4, 1, 2]))
    assert values.tolist() == [1, 0.5, 0.5, 0, 0]
    repeated = np.concatenate([scores_of(rated, rated.ratings), scores_of(rated, -rated.ratings)])
    assert agreement.agreement_per_pair(rated, repeated).tolist() == [0.5] * 5
    category = agreement.summarise(rated, values, "same_category", num_resamples=100, seed=0)
    assert category["value"] == 0.5 and category["num_pairs"] == 3
    assert category["folds"] == {"one": 0.75, "two": 0.0}
    # Confidences 2/8, 4/8 and 4/4.
    assert category["weighted"]["value"] == pytest.approx((0.25 * 1 + 0.5 * 0.5 + 0) / 1.75, abs=1e-4)
    # The pair with 2 votes for each side has no majority, and it is the only one of this scope in its fold.
    subject = agreement.summarise(rated, values, "same_subject", num_resamples=100, seed=0)
    assert subject["num_pairs"] == 1 and subject["folds"] == {"two": 0.0}


def test_bootstrap_resamples_photographs_not_pairs():
    """All pairs share one photograph, so resampling pairs would understate the interval."""
    rng = np.random.default_rng(0)
    pairs = np.array([[0, other] for other in range(1, 40)])
    rated = RatedPhotographs(
        folder=Path(), files=tuple(map(str, range(41))), subjects=np.full(41, "s"),
        categories=np.full(41, "c"), groups=np.array(["one"] * 40 + ["two"]), ratings=rng.random(41),
        pairs=pairs, queries=np.full(39, "q"), scopes=np.full(39, "same_category"),
        votes=(Votes(2, 1),) * 39,
    )  # fmt: skip
    values = (np.arange(39) % 2).astype(float)
    low, high = agreement.summarise(rated, values, "same_category", num_resamples=4000, seed=0)["ci95"]
    counts = rng.multinomial(40, np.full(40, 1 / 40), size=4000)[:, :40]
    drawn = counts[:, pairs[:, 0]] * counts[:, pairs[:, 1]]
    means = [row @ values / row.sum() for row in drawn if row.sum()]
    assert (low, high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.02)


def test_ceiling_in_closed_form():
    found = agreement.one_rater_against_others(
        [Votes(3, 1), Votes(2, 1), Votes(2, 2), Votes(5, 0), Votes(0, 0, 3)]
    )
    # 3:1: the three face 2:1 and agree, the one faces 3:0. 2:1: the two face 1:1. 2:2: everyone faces 1:2.
    assert found.tolist() == pytest.approx([3 / 4, (2 * 0.5 + 0) / 3, 0, 1, 0.5])


def test_ceiling_equals_a_loop_over_raters():
    rng = np.random.default_rng(0)
    for a, b in rng.integers(0, 9, (50, 2)):
        raters = [1] * a + [-1] * b
        agrees = [(1 + np.sign(sum(raters) - own) * own) / 2 for own in raters]
        expected = np.mean(agrees) if raters else 0.5
        assert agreement.one_rater_against_others([Votes(a, b)])[0] == pytest.approx(expected)


def test_subject_scores_use_the_name_alone(rated):
    fold = next(folds(rated))  # holds out "one", whose subjects also occur in "two"
    assert methods.subject_scores(rated, fold)[:4] == pytest.approx(
        [(rating + 2 * 2.5) / 3 for rating in (1, 2, 3, 4)]
    )


@pytest.mark.parametrize("gaussian", [False, True])
def test_ridge_ignores_the_held_out_photographs(gaussian):
    rng = np.random.default_rng(0)
    blocks = [rng.normal(size=(120, 3)), rng.normal(size=(120, 5))]
    ratings = 4 + blocks[0][:, 0] + 0.05 * rng.normal(size=120)
    fold = Fold("held out", np.arange(80), np.arange(80, 120))
    found = methods.ridge_scores([blocks], ratings, fold, gaussian=gaussian)
    assert np.corrcoef(found[fold.held_out], ratings[fold.held_out])[0, 1] > 0.8
    ratings[fold.held_out] = 0
    changed = [np.where(np.arange(120)[:, None] < 80, block, 7.0) for block in blocks]
    again = methods.ridge_scores([changed], ratings, fold, gaussian=gaussian)
    assert again[fold.train] == pytest.approx(found[fold.train])


def test_statistics_respond_to_colour_and_edges():
    grey, red = (Image.new("RGB", (120, 90), colour) for colour in ((128, 128, 128), (220, 30, 30)))
    stripes = Image.fromarray(np.tile(np.repeat([0, 255], 8)[None, :, None], (96, 6, 3)).astype(np.uint8))
    flat, vivid, striped = (features.colour_and_edge_features(image) for image in (grey, red, stripes))
    assert [len(block) for block in flat] == [19, 12, 14]
    assert all(np.isfinite(block).all() for block in (*flat, *vivid, *striped))
    assert vivid[0][10] > flat[0][10] == pytest.approx(0, abs=1e-6)  # colourfulness
    assert vivid[1].argmax() == 0 and flat[1].sum() == pytest.approx(0, abs=1e-6)  # red is the first hue
    assert (
        striped[2][0] > flat[2][0] and striped[2][6] > 0.9
    )  # vertical edges: the whole gradient is horizontal


def test_crops_stay_inside_and_half_are_mirrored():
    ramp = torch.arange(32).repeat(64, 3, 32, 1).to(torch.uint8).numpy()
    found = cropped(ramp, 0.5, np.random.default_rng(0))
    assert found.shape == ramp.shape and found.min() >= 0 and found.max() <= 31
    rising = (found[:, 0, 0, -1] > found[:, 0, 0, 0]).mean()
    assert 0.25 < rising < 0.75
    whole = cropped(ramp, 1.0, np.random.default_rng(0))
    unmirrored = np.where(whole[:, :1, :1, :1] > 16, whole[..., ::-1], whole)
    np.testing.assert_allclose(unmirrored, ramp, atol=1e-3)


@pytest.fixture
def bright_is_better(tmp_path) -> tuple[RatedPhotographs, np.ndarray]:
    """Grey images of two groups, with votes for the brighter of each pair; pixels uint8 [24, 3, 96, 96]."""
    levels = np.linspace(20, 235, 24).astype(np.uint8)
    groups = ["one" if i % 2 else "two" for i in range(24)]
    rows = [(f"{i}.png", f"s{i}", "Object", groups[i], float(i)) for i in range(24)]
    pairs = [
        ("picture", "same_category", f"{i}.png", f"{j}.png", 0, 9, 0, groups[i])
        for i in range(24) for j in range(i + 2, 24, 2)
    ]  # fmt: skip
    noise = np.random.default_rng(0).integers(-15, 15, (24, 3, 96, 96))
    pixels = np.clip(levels[:, None, None, None] + noise, 0, 255).astype(np.uint8)
    return read_photographs(write(tmp_path, rows, pairs)), pixels


@pytest.mark.parametrize("mode", ["text", "both"])
def test_dpo_learns_the_votes_without_changing_the_given_encoder(tiny_encoder_folder, bright_is_better, mode):
    rated, pixels = bright_is_better
    encoder = Encoder.load(tiny_encoder_folder)
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    options = TrainingOptions(num_steps=24, steps_per_check=8, photographs_per_step=8, learning_rate=3e-3)
    fold = next(folds(rated))
    scores = align_with_votes(encoder, pixels, rated, fold, mode=mode, options=options, seed=0)
    trained = np.isin(rated.pairs, fold.train).all(axis=1)
    assert (scores[trained, 1] > scores[trained, 0]).mean() > 0.9
    assert all(torch.equal(value, before[name]) for name, value in encoder.model.state_dict().items())


def test_report_compares_every_method_with_the_floor(rated):
    perfect = scores_of(rated, rated.ratings)
    scores = {
        "floor": -perfect, "subject": perfect, "query": perfect, "dpo_both": np.tile(perfect, (2, 1, 1)),
    }  # fmt: skip
    report = make_report(rated, scores, num_resamples=100, seed=0)
    assert [entry["name"] for entry in report["methods"]] == ["query", "dpo_both"]
    aligned = report["methods"][1]["same_category"]
    assert aligned["value"] == 1.0 and aligned["seeds"] == [1.0, 1.0]
    assert aligned["minus_floor"] == {"value": 1.0, "ci95": [1.0, 1.0]}
    assert report["ceiling"]["same_category"]["num_pairs"] == 3
    report |= {"machine": machine(), "created_at": "2026-01-01T00:00:00", "seconds": 1.0}
    html = page.page(report | {"held_out": ["<b>one", "two"], "interval": "<b>is escaped</b>"})
    assert "&lt;b&gt;is escaped" in html and html.count("<tr>") == 1 + 5 and "<svg" in html
    assert "1.000 · 1.000" in html  # the value of each training run


def test_real_floor_lies_between_chance_and_one_rater():
    """On the ratings of Brielmann and Pelli the floor is above chance, and one rater is above the floor."""
    if not (REAL / "pairs.csv").is_file():
        pytest.skip(f"no rated photographs in {REAL}: set KALLOS_PHOTOGRAPHS to a folder that has them")
    rated = read_photographs(str(REAL))
    photographs = [features.decoded(rated.folder / name) for name in rated.files]
    blocks = np.array([np.concatenate(features.colour_and_edge_features(image)) for image in photographs])
    scores = agreement.held_out_scores(
        rated, lambda fold: methods.ridge_scores([[blocks]], rated.ratings, fold)
    )
    agrees = agreement.agreement_per_pair(rated, scores[None])
    ceiling = agreement.one_rater_against_others(rated.votes)
    floor, rater = (
        agreement.summarise(rated, values, "same_category", num_resamples=500, seed=0)
        for values in (agrees, ceiling)
    )
    assert floor["ci95"][0] > 0.5 and floor["ci95"][1] < rater["ci95"][0]


def test_scope_without_a_majority_is_refused_before_training(tmp_path):
    rows = [(f"{i}.png", "cat", "animals", group, 1.0) for i, group in enumerate(["1", "1", "2", "2"])]
    pairs = [
        ("animals", "same_category", "0.png", "1.png", 3, 1, 0, "1"),
        ("cat", "same_subject", "2.png", "3.png", 2, 2, 0, "2"),
    ]
    rated = read_photographs(write(tmp_path, rows, pairs))
    with pytest.raises(UserError, match="no pair of the scope 'same_subject' with a majority"):
        check_scopes(rated)
