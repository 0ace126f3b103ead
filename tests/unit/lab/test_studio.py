"""The studio: its drawings, its truth, its captions and queries, and the votes of its raters."""

import dataclasses
import json

import numpy as np
import pytest

from cluster.errors import UserError
from lab.studio import job
from lab.studio.captions import detailed_caption, plain_caption, sample_queries, web_caption
from lab.studio.config import StudioConfig
from lab.studio.draw import render
from lab.studio.job import choose_queries, run, split_of
from lab.studio.latents import (
    AESTHETIC_WEIGHTS,
    Latents,
    is_accurate,
    parse_query,
    sample_latents,
    true_accuracy,
    true_aesthetics,
)
from lab.studio.raters import hpir_row, sample_raters
from lab.studio.subjects import DRAWINGS
from lab.studio.words import ASPECTS, BAD_PHRASES, COLOURS, GOOD_PHRASES, LIGHT_APPEAL, SETTINGS, SUBJECTS

BOAT = Latents(
    subject="sailboat",
    colour="red",
    count=1,
    setting="sea",
    light="sunset",
    companion="birds",
    place="left",
    composition=0.9,
    focus=0.9,
    exposure=0.9,
    palette=0.9,
    clutter=0.9,
    level=0.9,
    grain=0.9,
    scenery_seed=4,
)


def with_(**changes) -> Latents:
    return dataclasses.replace(BOAT, **changes)


def test_studio_has_at_least_24_subjects_in_8_settings():
    assert len(SUBJECTS) >= 24 and len(SETTINGS) >= 8
    assert set(DRAWINGS) == set(SUBJECTS)
    assert set(GOOD_PHRASES) == set(BAD_PHRASES) == {*ASPECTS, "overall"}
    assert sum(AESTHETIC_WEIGHTS.values()) == pytest.approx(1.0)


def test_the_same_seed_gives_the_same_scene_and_pixels():
    first, second = (sample_latents(np.random.default_rng((3, 5))) for _ in range(2))
    assert first == second != sample_latents(np.random.default_rng((3, 6)))
    np.testing.assert_array_equal(render(first), render(second))


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_is_visible_in_its_colour(subject):
    setting = SUBJECTS[subject].settings[0]
    images = [
        render(with_(subject=subject, setting=setting, colour=c), 96).astype(int) for c in ("red", "blue")
    ]
    assert images[0].shape == (96, 96, 3)
    changed = np.abs(images[0] - images[1]).max(axis=2) > 40
    assert 0.005 < changed.mean() < 0.5


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_is_drawn_differently_in_every_light(setting):
    subject = next(name for name, s in SUBJECTS.items() if setting in s.settings)
    images = [render(with_(subject=subject, setting=setting, light=light), 64) for light in LIGHT_APPEAL]
    assert len({image.tobytes() for image in images}) == len(LIGHT_APPEAL)


@pytest.mark.parametrize("aspect", [aspect for aspect in ASPECTS if aspect != "light"])
def test_every_aspect_raises_the_true_beauty_and_changes_the_image(aspect):
    bad, good = with_(**{aspect: 0.1}), with_(**{aspect: 1.0})
    assert true_aesthetics(bad) < true_aesthetics(good)
    assert np.abs(render(bad).astype(int) - render(good).astype(int)).mean() > 0.3


def test_true_beauty_spreads_over_the_unit_interval():
    rng = np.random.default_rng(0)
    values = np.array([true_aesthetics(sample_latents(rng)) for _ in range(2000)])
    assert values.min() >= 0 and values.max() <= 1
    assert 0.4 < values.mean() < 0.6 and values.std() > 0.2


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sailboat", 1.0),
        ("a yacht", 1.0),
        ("Sailboats!", 1.0),
        ("red sailboat at sunset", 1.0),
        ("blue sailboat at sunset", 0.75),
        ("blue sailboat at noon", 0.5),
        ("two sailboats", 0.5),
        ("red car", 0.0),
        ("something I have no words for", 1.0),
    ],
)
def test_true_accuracy(query, expected):
    assert true_accuracy(query, BOAT) == expected
    assert is_accurate(query, BOAT) == (expected == 1.0)


def test_query_phrases_match_whole_words_and_the_longest_first():
    assert parse_query("hot air balloon").subjects == {"hot air balloon"}
    assert parse_query("a scarf for the carpet").subjects == frozenset()
    assert parse_query("car and dog in the snow").subjects == {"car", "dog"}
    assert parse_query("cat at blue hour with white clouds").colour == ""
    assert parse_query("golden yellow teapot").colour == "yellow"
    assert set(COLOURS) == {parse_query(f"{colour} vase").colour for colour in COLOURS}


def test_detailed_captions_are_true_and_nearly_unique():
    rng = np.random.default_rng(1)
    latents = [sample_latents(rng) for _ in range(1000)]
    captions = [detailed_caption(x) for x in latents]
    assert all(is_accurate(caption, x) for caption, x in zip(captions, latents, strict=True))
    assert len(set(captions)) > 980


def test_plain_captions_are_true_and_web_captions_sometimes_wrong():
    rng = np.random.default_rng(2)
    latents = [sample_latents(rng) for _ in range(1000)]
    plain_true = np.mean([is_accurate(plain_caption(x, rng), x) for x in latents])
    web = [web_caption(x, rng).split(",")[0] for x in latents]
    web_true = np.mean([is_accurate(caption, x) for caption, x in zip(web, latents, strict=True)])
    assert plain_true == 1.0
    assert 0.9 < web_true < 0.98


def test_quality_words_fit_loosely():
    rng = np.random.default_rng(3)
    praise = {phrase for phrases in GOOD_PHRASES.values() for phrase in phrases}
    good, bad = with_(), with_(**{a: 0.05 for a in ASPECTS if a != "light"}, light="overcast")

    def praised(latents: Latents) -> float:
        words = [part for _ in range(600) for part in web_caption(latents, rng).split(", ")[1:]]
        return np.mean([word in praise for word in words])

    assert 0.75 < praised(good) < 1.0
    assert 0.0 < praised(bad) < 0.25


def test_queries_are_distinct_and_filtered_and_too_many_are_refused():
    rng = np.random.default_rng(4)
    queries = sample_queries(rng, 200, lambda query: "vase" not in query)
    assert len(set(queries)) == 200 and not any("vase" in query for query in queries)
    with pytest.raises(ValueError, match="num_queries=5"):
        sample_queries(rng, 5, lambda query: query == "vase")


def test_splits_have_their_shares_of_the_images():
    splits = [split_of(i, 1000) for i in range(1000)]
    assert [splits.count(name) for name in ("train", "gallery", "heldout")] == [400, 400, 200]


def test_a_finished_studio_is_kept_and_another_configuration_is_refused(tmp_path):
    config = StudioConfig(out=str(tmp_path), set=("align.beta=2",))
    identity = config.model_dump(exclude={"profile", "set", "store", "out"})
    (tmp_path / "studio.json").write_text(json.dumps(identity))
    assert run(config)["num_images"] == config.num_images
    assert [path.name for path in tmp_path.iterdir()] == ["studio.json"]
    with pytest.raises(UserError, match="another configuration"):
        run(config.model_copy(update={"seed": 1}))


def test_raters_agree_with_the_truth_in_most_but_not_all_votes():
    rng = np.random.default_rng(5)
    scenes = {f"boat{i}": sample_latents(rng, "sailboat") for i in range(60)}
    scenes |= {f"car{i}": sample_latents(rng, "car") for i in range(60)}
    boats = [name for name in scenes if name.startswith("boat")]
    raters = sample_raters(rng, 7)
    rows = [hpir_row("sailboat", scenes, boats, raters, rng) for _ in range(200)]
    gaps, leads = [], []
    for row in rows:
        assert not set(row["group_a"]) & set(row["group_b"])
        assert row["votes_accuracy_a"] + row["votes_accuracy_b"] == 7
        mean = [np.mean([true_aesthetics(scenes[i]) for i in row[g]]) for g in ("group_a", "group_b")]
        gaps.append(mean[0] - mean[1])
        leads.append(row["votes_aesthetic_a"] - row["votes_aesthetic_b"])
    agreement = np.mean(np.sign(gaps) == np.sign(leads))
    assert 0.8 < agreement < 1.0
    assert np.mean(np.abs(leads) < 7) > 0.1


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_images": 200, "num_heldout_queries": 40}, "num_images=200 is too few for 40 held-out queries"),
        ({"num_images": 100, "num_heldout_queries": 8}, "num_images=100 is too few"),
        ({"num_images": 500, "num_heldout_queries": 1}, "too few for votes on groups of 5 images"),
    ],
)
def test_too_few_images_are_refused_before_any_is_drawn(sizes, message, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "connect", lambda profile: pytest.fail("Ray was started"))
    with pytest.raises(UserError, match=message):
        run(StudioConfig(out=str(tmp_path / "studio"), **sizes))
    assert not list((tmp_path / "studio").iterdir())


def test_folder_that_cannot_be_written_is_refused_before_any_image_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "connect", lambda profile: pytest.fail("Ray was started"))
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below", "s3://bucket/studio"):
        with pytest.raises(UserError, match=r"cannot be written|is an address"):
            run(StudioConfig(out=str(out)))


def test_queries_are_those_of_the_drawn_images():
    """They are chosen before the images are drawn, from the same latents."""
    queries = choose_queries(StudioConfig(num_images=1000, num_heldout_queries=8, num_train_queries=20))
    scenes = [sample_latents(np.random.default_rng((0, index))) for index in range(400, 800)]
    assert len(queries.train) == 20 and not {*queries.train} & {*queries.held_out}
    for query in queries.held_out:
        assert sum(is_accurate(query, scene) for scene in scenes) >= 5
