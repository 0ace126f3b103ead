"""Evaluation of the mini rephraser: its queries, the check of expectations, shares and their intervals."""

import json

import numpy as np
import pytest

from actors.engine import Reply
from cluster.errors import UserError
from lab.pretrain.rephraser import everyday_words, job
from lab.pretrain.rephraser.card import figures_text
from lab.pretrain.rephraser.config import PretrainRephraserConfig as Config
from lab.pretrain.rephraser.evaluation import FIGURES, count_figures, share_text, table, wilson
from lab.pretrain.rephraser.evaluation_queries import (
    KINDS,
    EvaluationQuery,
    normalised,
    parse_plain,
    untrained_queries,
)
from lab.pretrain.rephraser.expectation_check import BAD, CONTRADICTED_LIGHTS, GOOD, check, is_suitable
from lab.pretrain.rephraser.training_chats import SCENE_OF_GROUP, SUITABLE_PHRASES, answer, draw_query
from lab.studio.latents import parse_query
from lab.studio.words import LIGHTS, SUBJECTS

PLURALS = {subject.plural for subject in SUBJECTS.values()}
SINGULARS = {word for subject in SUBJECTS.values() for word in (subject.name, *subject.synonyms)}


def one_letter_away(wrong: str, right: str) -> bool:
    """Whether a letter of `right` was dropped, doubled, or swapped with the next."""
    indices = range(len(right))
    dropped = {right[:i] + right[i + 1 :] for i in indices}
    doubled = {right[:i] + right[i] + right[i:] for i in indices}
    swapped = {right[:i] + right[i + 1 : i + 2] + right[i] + right[i + 2 :] for i in indices}
    return wrong != right and wrong in dropped | doubled | swapped


@pytest.mark.parametrize("kind", KINDS)
def test_queries_of_every_kind_are_seeded_distinct_and_untrained(kind):
    rng = np.random.default_rng(0)
    trained = {normalised(draw_query(rng).text) for _ in range(5000)}
    queries = untrained_queries(kind, 100, 3, trained)
    assert queries == untrained_queries(kind, 100, 3, trained) != untrained_queries(kind, 100, 4, trained)
    texts = {normalised(query.text) for query in queries}
    assert len(texts) == 100 and not texts & trained
    # A query is excluded once it is a training query.
    assert queries[0] not in untrained_queries(kind, 100, 3, trained | {normalised(queries[0].text)})
    for query in queries:
        assert check(query, query.text).keeps_subject and query.nouns
        assert query.scene in SUITABLE_PHRASES and query.light in ("", *LIGHTS)


def test_error_names_the_kind_that_has_too_few_queries():
    trained = {normalised(query.text) for query in untrained_queries("plain", 1300, 0)}
    with pytest.raises(ValueError, match="'plain'"):
        untrained_queries("plain", 50, 0, trained)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("red hot air balloon", EvaluationQuery("red hot air balloon", ("hot air balloon",), "wide")),
        ("vase", EvaluationQuery("vase", ("vase",), "indoor")),
        ("jug on the beach", EvaluationQuery("jug on the beach", ("jug",), "wide")),
        ("cat on a table", EvaluationQuery("cat on a table", ("cat",), "indoor")),
        ("teapot at night", EvaluationQuery("teapot at night", ("teapot",), "indoor", "night")),
    ],
)
def test_a_plain_query_is_parsed(text, expected):
    assert parse_plain(text) == expected
    with pytest.raises(ValueError, match="submarine"):
        parse_plain("submarine at night")


def test_word_order_queries_have_attributes_in_unusual_positions():
    for query in untrained_queries("word order", 100, 0):
        text, (noun,) = query.text, query.nouns
        assert noun in SINGULARS
        colour_last = text.startswith(f"{noun}, ")
        assert colour_last or (text.endswith(noun) and len(text.split()) > len(noun.split()))
        assert not query.light or any(text.startswith(phrase) for phrase in LIGHTS[query.light])


def test_a_typo_changes_one_letter_of_the_subject():
    for query in untrained_queries("typo", 100, 0):
        (wrong,) = query.nouns
        right = [noun for noun in SINGULARS if one_letter_away(wrong, noun)]
        assert wrong in query.text and right, query
        parse_plain(query.text.replace(wrong, right[0]))


def test_plural_and_two_subject_queries_contain_their_nouns():
    for query in untrained_queries("plural", 100, 0):
        assert set(query.nouns) <= PLURALS
    for query in untrained_queries("two subjects", 100, 0):
        first, second = query.nouns
        assert first != second and {first, second} <= set(SUBJECTS)
        assert parse_query(query.text).subjects >= {first, second}


def test_everyday_and_made_up_nouns_are_outside_the_lexicon_and_held_out():
    held_out = {word for group in SCENE_OF_GROUP for word in everyday_words.group_words(group, held_out=True)}
    for kind in ("everyday", "made up"):
        nouns = {noun for query in untrained_queries(kind, 100, 0) for noun in query.nouns}
        assert not nouns & (SINGULARS | PLURALS)
        assert kind == "made up" or nouns <= held_out


NIGHT = EvaluationQuery("boat at night", ("boat",), "wide", "night")
STILL = EvaluationQuery("vase on a table", ("vase",), "indoor")
SUITABLE = "soft light, rule of thirds"


@pytest.mark.parametrize(
    "query, text, suitable, unsuitable, other_words",
    [
        (NIGHT, "boat at night, dramatic light, level horizon", ("dramatic light", "level horizon"), (), ()),
        (NIGHT, "boat at night in golden hour light, stunning", ("stunning",), ("golden hour light",), ()),
        (STILL, f"vase on a table, {SUITABLE}", ("soft light", "rule of thirds"), (), ()),
        (STILL, "vase on a table with level horizon, golden hour light",
         (), ("level horizon", "golden hour light"), ()),
        (STILL, "vase on a table, tack sharp, too dark", ("tack sharp",), ("too dark",), ()),
        (STILL, f"vase on a table, vose on a horse in {SUITABLE}",
         ("soft light", "rule of thirds"), (), ("vose", "horse")),
        # A repetition counts once; "beautiful light" is not "beautiful"; words of the query are not added.
        (EvaluationQuery("stunning owl", ("owl",), "close"),
         "stunning owl, beautiful light, beautiful light, stunning", ("beautiful light",), (), ()),
    ],
)  # fmt: skip
def test_added_phrases_are_classified(query, text, suitable, unsuitable, other_words):
    checked = check(query, text)
    assert (checked.suitable, checked.unsuitable, checked.other_words) == (suitable, unsuitable, other_words)
    assert checked.keeps_subject
    assert checked.adds_suitable_only == (len(suitable) >= 2 and not unsuitable)


def test_golden_hour_suits_a_still_life_at_sunset():
    assert is_suitable("golden hour light", EvaluationQuery("vase at sunset", ("vase",), "indoor", "sunset"))
    assert not is_suitable("level horizon", EvaluationQuery("vase at sunset", ("vase",), "indoor", "sunset"))


@pytest.mark.parametrize("text", ["", "boats at night", "steamboat at night", "bo at night"])
def test_an_incomplete_subject_does_not_count_as_kept(text):
    assert not check(NIGHT, text).keeps_subject


def test_rules_use_phrases_and_lights_of_the_studio():
    assert set(CONTRADICTED_LIGHTS) <= GOOD and not GOOD & BAD
    assert {light for lights in CONTRADICTED_LIGHTS.values() for light in lights} <= set(LIGHTS)


def test_training_answers_contain_no_unsuitable_expectation():
    rng = np.random.default_rng(0)
    for _ in range(500):
        drawn = draw_query(rng)
        query = EvaluationQuery(drawn.text, (), drawn.scene, drawn.light)
        phrases = ", ".join(json.loads(answer(rng, drawn, "kw_dict")).values())
        assert check(query, f"{drawn.text}, {phrases}").unsuitable == (), drawn


class Scripted:
    """An engine whose first batch has one answer that does not parse, and whose second batch is given."""

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
    ids=["parses with the strict grammar", "never parses"],
)
def test_figures_are_counted_over_all_queries(second, expected):
    queries = [EvaluationQuery(noun, (noun,), "close") for noun in ("cat", "dog", "owl")]
    counts = count_figures(Scripted(second), queries, "k_list")
    assert counts == {"num_queries": 3, "parses_at_once": 2, **expected}


def test_wilson_interval_equals_values_computed_by_hand():
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(300, 300) == pytest.approx((0.9874, 1.0), abs=1e-4)
    assert share_text(294, 300) == "0.980 (0.957 to 0.991)"


def test_measuring_rewrites_only_the_figures_of_the_card(tmp_path, monkeypatch):
    row = {"num_queries": 4, **dict.fromkeys(FIGURES, 3)}
    evaluation, passed = {"plain": {"detail": row}}, {}

    def measure(folder, **arguments):
        passed.update(arguments, folder=folder)
        return evaluation

    monkeypatch.setattr(job, "measure", measure)
    folder = str(tmp_path)
    with pytest.raises(UserError, match="no card"):
        job.run(Config(measure=folder))
    card = tmp_path / "README.md"
    card.write_text("# A\n\n## Figures\nold\n\n## Limits\nnone\n")
    with pytest.raises(UserError, match="resolved_config"):
        job.run(Config(measure=folder))
    job.command.save_config(Config(num_steps=1, batch_size=2), folder)
    report = job.run(Config(measure=folder, num_eval_queries=4, seed=7))
    text = figures_text(evaluation, num_queries=4, seed=7)
    assert report == {"measured": folder, "evaluation": evaluation}
    assert card.read_text() == f"# A\n\n## Figures\n{text}\n\n## Limits\nnone\n"
    assert table(evaluation) in text and "seed 7" in text
    assert passed["folder"] == folder and len(passed["trained"]) > 20
