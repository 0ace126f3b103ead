"""The preferences that an alignment reads: of one run, of several, of people, or all."""

import pyarrow as pa
import pytest

from actors.caption_pairs import part_of
from cluster.errors import UserError
from cluster.schemas import PREFERENCE_KEY
from cluster.tables import SCHEMAS, now
from jobs.align.corpus import read_pairs, trainable
from jobs.align.job import counts

PARENT = "0123456789abcdef"


def preference(run_id: str, winner: str, source: str = "lmm_score") -> dict:
    names = dict(query="red boat", rephrased="red boat", style="original", winner=winner, loser="e")
    return dict(names, p_winner=0.65, winner_cell=[0, 1], loser_cell=[0, 0], source=source, consistent=True,
                judge=source, run_id=run_id)  # fmt: skip


@pytest.fixture
def filled(store):
    rows = [
        *(preference("one", winner) for winner in "ab"),
        preference("two", "c"),
        *(preference(f"feedback-{event}", "d", "human") for event in ("0a", "0b")),
    ]
    store.merge("preferences", pa.Table.from_pylist(rows, SCHEMAS["preferences"]), on=PREFERENCE_KEY)
    texts = dict.fromkeys(("rephrased", "style", "judge", "source"), "")
    lists = dict(image_ids=[], semantic_scores=[], aesthetic_scores=[])
    rankings = [
        dict(run_id=run, query="red boat", encoder=encoder, created_at=now(), **texts, **lists)
        for run, encoder in (("one", PARENT), ("two", "another"))
    ]
    table = pa.Table.from_pylist(rankings, SCHEMAS["rankings"])
    store.merge("rankings", table, on=["run_id", "query"])
    images = pa.Table.from_pylist([{"image_id": image_id} for image_id in "abcde"], SCHEMAS["images"])
    store.merge("images", images, on=["image_id"])
    return store


@pytest.mark.parametrize(
    ("run_id", "winners"),
    [("one", "ab"), ("feedback", "dd"), ("one,feedback", "abdd"), ("feedback,one", "abdd")],
)
def test_runs_and_human_choices_are_read_together(filled, run_id, winners):
    pairs = read_pairs(filled, run_id, PARENT)
    assert sorted(pairs["winner"].to_pylist()) == list(winners)
    assert counts(pairs)["num_human"] == winners.count("d")


@pytest.mark.parametrize("run_id", ["", "two", "one,two"])
def test_a_run_whose_images_another_encoder_retrieved_is_refused(filled, run_id):
    with pytest.raises(UserError, match="of run two were made with encoder another"):
        read_pairs(filled, run_id, PARENT)


@pytest.mark.parametrize("run_id", ["three", "one,three"])
def test_a_run_without_preferences_is_refused_with_the_names_of_those_that_exist(filled, run_id):
    with pytest.raises(UserError, match=r"of run 'three'; its runs are feedback, one, two: "):
        read_pairs(filled, run_id, PARENT)


def test_pairs_with_deleted_images_are_skipped_and_counted(filled, capfd):
    filled.open("images").delete("image_id = 'a'")
    assert sorted(read_pairs(filled, "one,feedback", PARENT)["winner"].to_pylist()) == list("bdd")
    assert "1 of 4 preferences are skipped: their images are gone" in capfd.readouterr().err
    read_pairs(filled, "feedback", PARENT)
    assert "skipped" not in capfd.readouterr().err


def test_preferences_whose_images_are_all_gone_are_refused(filled):
    filled.open("images").delete("image_id = 'e'")
    with pytest.raises(UserError, match="images of all 2 preferences are missing from table images"):
        read_pairs(filled, "one", PARENT)


@pytest.mark.parametrize(
    "broken", [{"p_winner": float("nan")}, {"p_winner": None}, {"p_winner": 1.5}, {"consistent": None}]
)
def test_preference_without_a_value_is_skipped_and_reported(filled, broken, capsys):
    rows = [preference("one", "c") | broken]
    filled.merge("preferences", pa.Table.from_pylist(rows, SCHEMAS["preferences"]), on=PREFERENCE_KEY)
    assert sorted(read_pairs(filled, "one", PARENT)["winner"].to_pylist()) == ["a", "b"]
    assert "1 of 3 preferences are skipped: a value is missing" in capsys.readouterr().err
    rows = [preference("three", "c") | broken]
    filled.merge("preferences", pa.Table.from_pylist(rows, SCHEMAS["preferences"]), on=PREFERENCE_KEY)
    with pytest.raises(UserError, match="None of the 1 preferences has all values"):
        read_pairs(filled, "three", PARENT)


def test_pairs_with_a_held_out_image_do_not_train():
    train, guard, test = "000000ff", "00000004", "00000005"
    assert [part_of(image_id) for image_id in (train, guard, test)] == ["train", "guard", "test"]
    sides = [(train, "aa"), (train, guard), (test, train), (guard, test), ("aa", train)]
    rows = [preference("one", winner) | {"loser": loser} for winner, loser in sides]
    pairs = pa.Table.from_pylist(rows, SCHEMAS["preferences"])
    kept = trainable(pairs)
    assert list(zip(kept["winner"].to_pylist(), kept["loser"].to_pylist(), strict=True)) == [
        (train, "aa"),
        ("aa", train),
    ]
    with pytest.raises(UserError, match=r"All 3 preferences have an image that is held out .* label more"):
        trainable(pairs.slice(1, 3))
