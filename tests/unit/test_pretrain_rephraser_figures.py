"""How the mini rephraser is measured: queries of every kind, what fits them, shares and their intervals."""

import json

import numpy as np
import pytest

from actors.engine import Reply
from cluster.errors import UserError
from lab.pretrain.rephraser import card as rephraser_card
from lab.pretrain.rephraser import job as recipe
from lab.pretrain.rephraser import world_words
from lab.pretrain.rephraser.config import PretrainRephraserConfig as Config
from lab.pretrain.rephraser.data import SCENE_OF_GROUP, SUITS, answer, draw_query
from lab.pretrain.rephraser.figures import FIGURES, counts, share, table, wilson
from lab.pretrain.rephraser.fit import BAD, CONTRADICTED, GOOD, check, fits
from lab.pretrain.rephraser.queries import KINDS, Asked, same, understood, unseen
from lab.studio.latents import parse_query
from lab.studio.words import LIGHTS, SUBJECTS

PLURALS = {subject.plural for subject in SUBJECTS.values()}
SINGULARS = {word for subject in SUBJECTS.values() for word in (subject.name, *subject.synonyms)}


def one_letter_away(wrong: str, right: str) -> bool:
    """Whether a letter of `right` was dropped, doubled, or swapped with the next."""
    places = range(len(right))
    dropped = {right[:at] + right[at + 1 :] for at in places}
    doubled = {right[:at] + right[at] + right[at:] for at in places}
    swapped = {right[:at] + right[at + 1 : at + 2] + right[at] + right[at + 2 :] for at in places}
    return wrong != right and wrong in dropped | doubled | swapped


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_seeded_distinct_and_unlike_what_was_trained_on(kind):
    rng = np.random.default_rng(0)
    trained = {same(draw_query(rng).text) for _ in range(5000)}
    asked = unseen(kind, 100, 3, trained)
    assert asked == unseen(kind, 100, 3, trained) != unseen(kind, 100, 4, trained)
    texts = {same(query.text) for query in asked}
    assert len(texts) == 100 and not texts & trained
    # What would have been asked first is left out once it was trained on.
    assert asked[0] not in unseen(kind, 100, 3, trained | {same(asked[0].text)})
    for query in asked:
        assert check(query, query.text).keeps_subject and query.nouns
        assert query.scene in SUITS and query.light in ("", *LIGHTS)


def test_a_kind_that_runs_out_says_so():
    with pytest.raises(ValueError, match="'plain'"):
        unseen("plain", 50, 0, {same(query.text) for query in unseen("plain", 1300, 0)})


@pytest.mark.parametrize(
    "text, expected",
    [
        ("red hot air balloon", Asked("red hot air balloon", ("hot air balloon",), "wide")),
        ("vase", Asked("vase", ("vase",), "indoor")),
        ("jug on the beach", Asked("jug on the beach", ("jug",), "wide")),
        ("cat on a table", Asked("cat on a table", ("cat",), "indoor")),
        ("teapot at night", Asked("teapot at night", ("teapot",), "indoor", "night")),
    ],
)
def test_a_plain_query_is_read_back(text, expected):
    assert understood(text) == expected
    with pytest.raises(ValueError, match="submarine"):
        understood("submarine at night")


def test_attributes_stand_where_they_are_seldom_typed():
    for query in unseen("word order", 100, 0):
        text, (noun,) = query.text, query.nouns
        assert noun in SINGULARS
        colour_behind = text.startswith(f"{noun}, ")
        assert colour_behind or (text.endswith(noun) and len(text.split()) > len(noun.split()))
        assert not (query.light and not any(text.startswith(said) for said in LIGHTS[query.light]))


def test_a_typo_is_one_letter_of_the_subject():
    for query in unseen("typo", 100, 0):
        (wrong,) = query.nouns
        right = [noun for noun in SINGULARS if one_letter_away(wrong, noun)]
        assert wrong in query.text and right, query
        understood(query.text.replace(wrong, right[0]))


def test_plurals_and_two_subjects_name_what_they_promise():
    for query in unseen("plural", 100, 0):
        assert set(query.nouns) <= PLURALS
    for query in unseen("two subjects", 100, 0):
        first, second = query.nouns
        assert first != second and {first, second} <= set(SUBJECTS)
        assert parse_query(query.text).subjects >= {first, second}


def test_outside_words_are_in_no_lexicon_and_the_everyday_ones_were_kept_back():
    kept_back = {word for group in SCENE_OF_GROUP for word in world_words.words(group, held_out=True)}
    for kind in ("everyday", "made up"):
        asked = unseen(kind, 100, 0)
        assert not {noun for query in asked for noun in query.nouns} & (SINGULARS | PLURALS)
        assert kind == "made up" or {noun for query in asked for noun in query.nouns} <= kept_back


NIGHT = Asked("boat at night", ("boat",), "wide", "night")
STILL = Asked("vase on a table", ("vase",), "indoor")
FITTING = "soft light, rule of thirds"


@pytest.mark.parametrize(
    "asked, text, fitting, unfitting, foreign",
    [
        (NIGHT, "boat at night, dramatic light, level horizon", ("dramatic light", "level horizon"), (), ()),
        (NIGHT, "boat at night in golden hour light, stunning", ("stunning",), ("golden hour light",), ()),
        (STILL, f"vase on a table, {FITTING}", ("soft light", "rule of thirds"), (), ()),
        (STILL, "vase on a table with level horizon, golden hour light",
         (), ("level horizon", "golden hour light"), ()),
        (STILL, "vase on a table, tack sharp, too dark", ("tack sharp",), ("too dark",), ()),
        (STILL, f"vase on a table, vose on a horse in {FITTING}",
         ("soft light", "rule of thirds"), (), ("vose", "horse")),
        # Said twice counts once; "beautiful light" is not "beautiful"; what the query says is not added.
        (Asked("stunning owl", ("owl",), "close"), "stunning owl, beautiful light, beautiful light, stunning",
         ("beautiful light",), (), ()),
    ],
)  # fmt: skip
def test_what_a_text_adds_is_told_apart(asked, text, fitting, unfitting, foreign):
    checked = check(asked, text)
    assert (checked.fitting, checked.unfitting, checked.foreign) == (fitting, unfitting, foreign)
    assert checked.keeps_subject
    assert checked.fits == (len(fitting) >= 2 and not unfitting)


def test_golden_hour_fits_a_still_life_that_asks_for_it():
    assert fits("golden hour light", Asked("vase at sunset", ("vase",), "indoor", "sunset"))
    assert not fits("level horizon", Asked("vase at sunset", ("vase",), "indoor", "sunset"))


@pytest.mark.parametrize("text", ["", "boats at night", "steamboat at night", "bo at night"])
def test_a_subject_that_is_not_whole_is_lost(text):
    assert not check(NIGHT, text).keeps_subject


def test_every_rule_is_about_the_studio_s_own_words():
    assert set(CONTRADICTED) <= GOOD and not GOOD & BAD
    assert {light for lights in CONTRADICTED.values() for light in lights} <= set(LIGHTS)


def test_what_training_teaches_fits():
    rng = np.random.default_rng(0)
    for _ in range(500):
        query = draw_query(rng)
        asked = Asked(query.text, (), query.scene, query.light)
        said = ", ".join(json.loads(answer(rng, query, "kw_dict")).values())
        assert check(asked, f"{query.text}, {said}").unfitting == (), query


class Scripted:
    """An engine whose first batch has one answer that does not parse, and whose second is as scripted."""

    def __init__(self, second: Reply):
        self.batches = [
            [reply("soft light", "calm"), Reply(text="{"), reply("soft light", "stunning")],
            [second],
        ]

    def generate(self, requests):
        return self.batches.pop(0)


def reply(*qualities: str) -> Reply:
    return Reply(text=json.dumps({"qualities": qualities}), finish_reason="stop")


@pytest.mark.parametrize(
    "second, expected",
    [
        (reply("sharp focus", "minimalist"), dict(parses=3, keeps_subject=3, fits=2, nothing_else=2)),
        (Reply(text="{"), dict(parses=2, keeps_subject=2, fits=1, nothing_else=1)),
    ],
    ids=["mended by the strict grammar", "never answered"],
)
def test_counts(second, expected):
    asked = [Asked(noun, (noun,), "close") for noun in ("cat", "dog", "owl")]
    counted = counts(Scripted(second), asked, "k_list")
    assert counted == {"num_queries": 3, "parses_at_once": 2, **expected}


def test_wilson_against_worked_values():
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(300, 300) == pytest.approx((0.9874, 1.0), abs=1e-4)
    assert share(294, 300) == "0.980 (0.957 to 0.991)"


def test_measuring_rewrites_the_figures_and_nothing_else(tmp_path, monkeypatch):
    row = {"num_queries": 4, **dict.fromkeys(FIGURES, 3)}
    evaluation, seen = {"plain": {"detail": row}}, {}

    def measure(folder, **asked):
        seen.update(asked, folder=folder)
        return evaluation

    monkeypatch.setattr(recipe, "measure", measure)
    folder = str(tmp_path)
    with pytest.raises(UserError, match="resolved_config"):
        recipe.run(Config(measure=folder))
    recipe.command.save_config(Config(num_steps=1, batch_size=2), folder)
    with pytest.raises(UserError, match="no card"):
        recipe.run(Config(measure=folder))
    card = tmp_path / "README.md"
    card.write_text("# A\n\n## Figures\nold\n\n## Limits\nnone\n")
    report = recipe.run(Config(measure=folder, num_eval_queries=4, seed=7))
    text = rephraser_card.figures_text(evaluation, num_queries=4, seed=7)
    assert report == {"measured": folder, "evaluation": evaluation}
    assert card.read_text() == f"# A\n\n## Figures\n{text}\n\n## Limits\nnone\n"
    assert table(evaluation) in text and "seed 7" in text
    assert seen["folder"] == folder and len(seen["trained"]) > 20
