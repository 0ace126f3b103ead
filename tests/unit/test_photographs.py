"""People's votes on photographs: folds, agreement, the ceiling, and what learns from them."""

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
from jobs.align.objectives import dpo_loss
from jobs.evaluate.hpir import Votes
from lab.machine import machine
from lab.photographs import job as measure
from lab.photographs import learn, page, votes
from lab.photographs.config import PhotographsConfig
from lab.photographs.votes import Fold, Panel, read_panel

REAL = Path(os.environ.get("KALLOS_PHOTOGRAPHS", ROOT.parent / "shared" / "data" / "oasis_beauty"))
# file, subject, category, group, rating: the last photograph of each group is the most beautiful.
PHOTOGRAPHS = [
    (f"images/{group}{number}.png", f"subject{number}", "Object", group, 1.0 + number)
    for group in ("one", "two")
    for number in range(4)
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
def panel(tmp_path) -> Panel:
    return read_panel(write(tmp_path))


def scores_of(panel: Panel, values) -> np.ndarray:
    return np.asarray(values, float)[panel.sides][None]


def test_a_folder_is_read_as_it_stands(panel):
    assert panel.files[5] == "images/two1.png" and panel.ratings[5] == 2.0
    assert panel.sides.tolist() == [[0, 1], [2, 1], [3, 0], [4, 7], [5, 6]]
    assert panel.votes[0] == Votes(1, 3, 4)
    assert panel.pair_groups.tolist() == ["one", "one", "one", "two", "two"]


@pytest.mark.parametrize(
    ("photographs", "pairs", "said"),
    [
        (PHOTOGRAPHS, [(*PAIRS[0][:3], "images/two1.png", *PAIRS[0][4:])],
         "'images/one0.png' with 'images/two1.png'"),
        (PHOTOGRAPHS, [(*PAIRS[0][:-1], "two")], "own rater_group"),
        (PHOTOGRAPHS, [(*PAIRS[0][:3], "images/x.png", *PAIRS[0][4:])], "names 'images/x.png'"),
        (PHOTOGRAPHS, [("object", "nearby", *PAIRS[0][2:])], "the scope 'nearby'"),
        (PHOTOGRAPHS[:4], PAIRS[:3], "one rater_group"),
    ],
)  # fmt: skip
def test_tables_that_would_mix_groups_are_refused(tmp_path, photographs, pairs, said):
    with pytest.raises(UserError, match=said):
        read_panel(write(tmp_path, photographs, pairs))


def test_a_missing_column_or_photograph_is_named(tmp_path):
    folder = write(tmp_path)
    (tmp_path / "metadata.csv").write_text("file,subject\nimages/one0.png,cup\n")
    with pytest.raises(UserError, match=r"lacks the column\(s\) category, rater_group, beauty_mean"):
        read_panel(folder)
    with pytest.raises(UserError, match=r"absent\.png"):
        measure._decoded(tmp_path / "absent.png")


def test_folds_never_share_a_photograph_and_hold_each_out_once(panel):
    folds = list(votes.folds(panel))
    assert [fold.name for fold in folds] == ["one", "two"]
    for fold in folds:
        assert not set(fold.learn) & set(fold.held)
        assert sorted([*fold.learn, *fold.held]) == list(range(8))
        assert set(panel.groups[fold.held]) == {fold.name}
        assert fold.name not in panel.groups[fold.learn]
    assert sorted(np.concatenate([fold.held for fold in folds])) == list(range(8))


def test_every_pair_is_scored_by_what_did_not_learn_from_its_group(panel):
    places = {"one": 10.0, "two": 20.0}
    found = votes.held_out(panel, lambda fold: np.full(8, places[fold.name]))
    assert found[:, 0].tolist() == [10, 10, 10, 20, 20]
    per_pair = votes.held_out(panel, lambda fold: np.full((5, 2), places[fold.name]))
    assert per_pair.tolist() == found.tolist()


def test_agreement_with_ties_of_votes_and_of_scores(panel):
    values = votes.agreements(panel, scores_of(panel, [0, 1, 1, 9, 5, 4, 1, 2]))
    assert values.tolist() == [1, 0.5, 0.5, 0, 0]
    repeated = np.concatenate([scores_of(panel, panel.ratings), scores_of(panel, -panel.ratings)])
    assert votes.agreements(panel, repeated).tolist() == [0.5] * 5
    category = votes.figure(panel, values, "same_category", num_resamples=100, seed=0)
    assert category["value"] == 0.5 and category["num_pairs"] == 3
    assert category["folds"] == {"one": 0.75, "two": 0.0}
    # Confidences 2/8, 4/8 and 4/4.
    assert category["weighted"]["value"] == pytest.approx((0.25 * 1 + 0.5 * 0.5 + 0) / 1.75, abs=1e-4)
    # The pair with 2 votes on either side has no majority, and the fold has no other of this scope.
    subject = votes.figure(panel, values, "same_subject", num_resamples=100, seed=0)
    assert subject["num_pairs"] == 1 and subject["folds"] == {"two": 0.0}


def test_the_interval_draws_photographs_not_pairs():
    """Every pair shares one photograph: drawing pairs would find no spread in who wins."""
    rng = np.random.default_rng(0)
    sides = np.array([[0, other] for other in range(1, 40)])
    panel = Panel(
        folder=Path(), files=tuple(map(str, range(41))), subjects=np.full(41, "s"),
        categories=np.full(41, "c"), groups=np.array(["one"] * 40 + ["two"]), ratings=rng.random(41),
        sides=sides, queries=np.full(39, "q"), scopes=np.full(39, "same_category"),
        votes=(Votes(2, 1),) * 39,
    )  # fmt: skip
    values = (np.arange(39) % 2).astype(float)
    low, high = votes.figure(panel, values, "same_category", num_resamples=4000, seed=0)["ci95"]
    counts = rng.multinomial(40, np.full(40, 1 / 40), size=4000)[:, :40]
    drawn = counts[:, sides[:, 0]] * counts[:, sides[:, 1]]
    means = [row @ values / row.sum() for row in drawn if row.sum()]
    assert (low, high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.02)


def test_the_ceiling_in_closed_form():
    found = votes.one_against_others([Votes(3, 1), Votes(2, 1), Votes(2, 2), Votes(5, 0), Votes(0, 0, 3)])
    # 3:1, the three see 2:1 and agree, the one sees 3:0. 2:1, the two see 1:1. 2:2, all see 1:2.
    assert found.tolist() == pytest.approx([3 / 4, (2 * 0.5 + 0) / 3, 0, 1, 0.5])


def test_the_ceiling_equals_a_walk_over_raters():
    rng = np.random.default_rng(0)
    for a, b in rng.integers(0, 9, (50, 2)):
        raters = [1] * a + [-1] * b
        hits = [(1 + np.sign(sum(raters) - mine) * mine) / 2 for mine in raters]
        expected = np.mean(hits) if raters else 0.5
        assert votes.one_against_others([Votes(a, b)])[0] == pytest.approx(expected)


def test_subjects_are_known_by_name_alone(panel):
    fold = next(votes.folds(panel))  # holds out "one", whose subjects stand in "two" too
    assert votes.subject_scores(panel, fold)[:4] == pytest.approx(
        [(rating + 2 * 2.5) / 3 for rating in (1, 2, 3, 4)]
    )


@pytest.mark.parametrize("gaussian", [False, True])
def test_ridge_learns_from_its_own_photographs_alone(gaussian):
    rng = np.random.default_rng(0)
    blocks = [rng.normal(size=(120, 3)), rng.normal(size=(120, 5))]
    ratings = 4 + blocks[0][:, 0] + 0.05 * rng.normal(size=120)
    fold = Fold("held", np.arange(80), np.arange(80, 120))
    found = measure.ridge_scores([blocks], ratings, fold, gaussian=gaussian)
    assert np.corrcoef(found[fold.held], ratings[fold.held])[0, 1] > 0.8
    ratings[fold.held] = 0
    changed = [np.where(np.arange(120)[:, None] < 80, block, 7.0) for block in blocks]
    again = measure.ridge_scores([changed], ratings, fold, gaussian=gaussian)
    assert again[fold.learn] == pytest.approx(found[fold.learn])


def test_hand_features_see_colour_and_edges():
    grey, red = (Image.new("RGB", (120, 90), colour) for colour in ((128, 128, 128), (220, 30, 30)))
    stripes = Image.fromarray(np.tile(np.repeat([0, 255], 8)[None, :, None], (96, 6, 3)).astype(np.uint8))
    flat, vivid, striped = (learn.hand_features(image) for image in (grey, red, stripes))
    assert [len(block) for block in flat] == [19, 12, 14]
    assert all(np.isfinite(block).all() for block in (*flat, *vivid, *striped))
    assert vivid[0][10] > flat[0][10] == pytest.approx(0, abs=1e-6)  # colourfulness
    assert vivid[1].argmax() == 0 and flat[1].sum() == pytest.approx(0, abs=1e-6)  # red is the first hue
    assert striped[2][0] > flat[2][0] and striped[2][6] > 0.9  # upright edges: all of the gradient is across


def test_the_loss_is_dpo_with_soft_labels():
    generator = torch.Generator().manual_seed(0)
    policy, reference = (torch.randn(64, 2, generator=generator) for _ in range(2))
    share = torch.rand(64, generator=generator)
    expected, _, _ = dpo_loss(*policy.T, *reference.T, beta=0.7, label_smoothing=1 - share)
    torch.testing.assert_close(learn.preference_loss(policy, reference, share, beta=0.7), expected)


def test_crops_stay_inside_and_half_are_mirrored():
    ramp = torch.arange(32).repeat(64, 3, 32, 1).to(torch.uint8)
    found = learn.cropped(ramp, 0.5, np.random.default_rng(0))
    assert found.shape == ramp.shape and found.min() >= 0 and found.max() <= 31
    rising = (found[:, 0, 0, -1] > found[:, 0, 0, 0]).float().mean()
    assert 0.25 < rising < 0.75
    whole = learn.cropped(ramp, 1.0, np.random.default_rng(0))
    mirrored = torch.where((whole[:, :1, :1, :1] > 16), whole.flip(-1), whole)
    torch.testing.assert_close(mirrored, ramp.float(), atol=1e-3, rtol=0)


@pytest.fixture
def bright_is_better(tmp_path) -> tuple[Panel, np.ndarray]:
    """Grey pictures of two groups, and votes for the brighter of two; pixels uint8 [24, 3, 96, 96]."""
    levels = np.linspace(20, 235, 24).astype(np.uint8)
    groups = ["one" if i % 2 else "two" for i in range(24)]
    rows = [(f"{i}.png", f"s{i}", "Object", groups[i], float(i)) for i in range(24)]
    pairs = [
        ("picture", "same_category", f"{i}.png", f"{j}.png", 0, 9, 0, groups[i])
        for i in range(24) for j in range(i + 2, 24, 2)
    ]  # fmt: skip
    noise = np.random.default_rng(0).integers(-15, 15, (24, 3, 96, 96))
    pixels = np.clip(levels[:, None, None, None] + noise, 0, 255).astype(np.uint8)
    return read_panel(write(tmp_path, rows, pairs)), pixels


@pytest.mark.parametrize("mode", ["text", "both"])
def test_dpo_learns_the_votes_and_leaves_the_encoder_as_it_is(tiny_encoder_folder, bright_is_better, mode):
    panel, pixels = bright_is_better
    encoder = Encoder.load(tiny_encoder_folder)
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    recipe = learn.Recipe(num_steps=24, check_every=8, photographs_per_step=8, learning_rate=3e-3)
    fold = next(votes.folds(panel))
    scores = learn.align(encoder, pixels, panel, fold, mode=mode, recipe=recipe, seed=0)
    learned = np.isin(panel.sides, fold.learn).all(axis=1)
    assert (scores[learned, 1] > scores[learned, 0]).mean() > 0.9
    assert all(torch.equal(value, before[name]) for name, value in encoder.model.state_dict().items())


def test_the_report_compares_with_the_floor(panel):
    truth = scores_of(panel, panel.ratings)
    config = PhotographsConfig(folder="", num_resamples=100)
    report = measure.summarise(
        panel,
        {"floor": -truth, "subject": truth, "query": truth, "dpo_both": np.tile(truth, (2, 1, 1))},
        config,
    )
    assert [entry["name"] for entry in report["methods"]] == ["query", "dpo_both"]
    aligned = report["methods"][1]["same_category"]
    assert aligned["value"] == 1.0 and aligned["seeds"] == [1.0, 1.0]
    assert aligned["minus_floor"] == {"value": 1.0, "ci95": [1.0, 1.0]}
    assert report["ceiling"]["same_category"]["num_pairs"] == 3
    assert any("query, dpo_both" in sentence for sentence in report["conclusions"])
    about = {"machine": machine(), "created_at": "2026-01-01T00:00:00", "seconds": 1.0}
    drawn = page.page(report | about | {"conclusions": ["<b>is escaped</b>"]})
    assert "&lt;b&gt;is escaped" in drawn and drawn.count("<tr>") == 1 + 5 and "<svg" in drawn
    assert "1.000 · 1.000" in drawn  # each training's own value


def test_the_real_floor_and_ceiling():
    """The floor of Brielmann and Pelli's ratings lies above chance, one rater above the floor."""
    if not (REAL / "pairs.csv").is_file():
        pytest.skip(f"no rated photographs at {REAL}: KALLOS_PHOTOGRAPHS may name a folder that has them")
    panel = read_panel(str(REAL))
    hand = [learn.hand_features(measure._decoded(panel.folder / name)) for name in panel.files]
    features = np.array([np.concatenate(blocks) for blocks in hand])
    scores = votes.held_out(panel, lambda fold: measure.ridge_scores([[features]], panel.ratings, fold))
    agrees = votes.agreements(panel, scores[None])
    ceiling = votes.one_against_others(panel.votes)
    floor, rater = (
        votes.figure(panel, values, "same_category", num_resamples=500, seed=0)
        for values in (agrees, ceiling)
    )
    assert floor["ci95"][0] > 0.5 and floor["ci95"][1] < rater["ci95"][0]
