"""Batches of alignment: their queries, images, texts and weights, on hand-made arrays."""

import math

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import UserError
from cluster.profile import Align, load_profile
from jobs.align.batches import BatchSchedule, Corpus, group_pairs, make_batch, weigh_pairs
from jobs.align.corpus import save_corpus, saved_corpus, without_images


@pytest.fixture
def corpus() -> Corpus:
    queries = pa.table(
        {
            "query": ["a red boat", "a cat"],
            "winner": pa.array([[2, 2, 0], [4]], pa.list_(pa.int32())),
            "loser": pa.array([[0, 5, 5], [2]], pa.list_(pa.int32())),
            "p_winner": pa.array([[1.0, 0.9, 0.6], [0.7]], pa.list_(pa.float32())),
            "weight": pa.array([[1.0, 1.0, 1.0], [0.25]], pa.list_(pa.float32())),
            "winner_reference": pa.array([[2.5, 2.5, 0.5], [4.5]], pa.list_(pa.float32())),
            "loser_reference": pa.array([[0.5, 5.5, 5.5], [2.25]], pa.list_(pa.float32())),
        }
    )
    captions = pa.table(
        {
            "image": pa.array([3, 5, 1], pa.int32()),
            "caption": ["a cat", "a boat at sea", "a dog"],
        }
    )
    guard = captions.slice(0, 0)
    return Corpus(queries, captions, guard, pa.array([f"image-{row}" for row in range(6)]))


def test_pairs_and_captions_of_lost_images_are_left_out_and_counted(corpus: Corpus, tmp_path, capsys):
    kept = without_images(corpus, np.arange(6) == 5)
    assert kept.queries.schema == corpus.queries.schema and kept.image_ids == corpus.image_ids
    assert kept.queries["winner"].to_pylist() == [[2], [4]] and kept.queries["loser"].to_pylist() == [
        [0],
        [2],
    ]
    assert kept.queries["winner_reference"].to_pylist() == [[2.5], [4.5]]
    assert kept.captions["caption"].to_pylist() == ["a cat", "a dog"]
    assert (
        "2 of 4 preferences and 1 captions are skipped: 1 images were deleted or cannot be read, such as "
        "image-5; `kallos delete" in capsys.readouterr().err
    )
    assert without_images(corpus, np.isin(np.arange(6), (0, 5))).queries["query"].to_pylist() == ["a cat"]
    save_corpus(kept, tmp_path / "corpus")
    read = saved_corpus(tmp_path / "corpus")
    assert read and read.queries.to_pydict() == kept.queries.to_pydict() and read.image_ids == kept.image_ids
    assert make_batch(read, np.array([0, 1]), np.array([0, 1]))["images"].tolist() == [0, 1, 2, 3, 4]
    plan = schedule().of_corpus(kept)
    assert (plan.num_queries, plan.num_captions) == (2, 2)


def test_a_corpus_without_a_readable_image_is_refused(corpus: Corpus):
    with pytest.raises(UserError, match="Nothing is left to train on: 4 of 4 preferences"):
        without_images(corpus, np.isin(np.arange(6), (0, 2)))
    with pytest.raises(UserError, match="Nothing is left to train on: 2 of 4 preferences and 3 captions"):
        without_images(corpus, np.isin(np.arange(6), (1, 3, 5)))


def test_a_batch_has_each_image_and_text_once(corpus: Corpus):
    batch = make_batch(corpus, np.array([1, 0]), np.array([0, 1]))
    assert batch["images"].tolist() == [0, 2, 3, 4, 5]
    assert batch["texts"] == ["a cat", "a red boat", "a boat at sea"]
    assert batch["pair_query"].tolist() == [0, 1, 1, 1]
    assert batch["pair_winner"].tolist() == [3, 1, 1, 0]
    assert batch["pair_loser"].tolist() == [1, 0, 4, 4]
    assert batch["p_winner"].tolist() == pytest.approx([0.7, 1.0, 0.9, 0.6])
    assert batch["winner_reference"].tolist() == [4.5, 2.5, 2.5, 0.5]
    assert batch["loser_reference"].tolist() == [2.25, 0.5, 5.5, 5.5]
    assert batch["caption_image"].tolist() == [2, 4]
    assert batch["caption_text"].tolist() == [0, 2]


def test_weights_in_a_batch_are_divided_by_the_number_of_its_queries(corpus: Corpus):
    batch = make_batch(corpus, np.array([1, 0]), np.array([], np.int64))
    assert batch["pair_weight"].tolist() == pytest.approx([1 / 8, 1 / 2, 1 / 2, 1 / 2])
    assert batch["pair_weight"].dtype == np.float32
    assert batch["caption_image"].tolist() == batch["caption_text"].tolist() == []


def test_a_query_drawn_twice_has_its_text_and_images_once(corpus: Corpus):
    batch = make_batch(corpus, np.array([1, 1]), np.array([], np.int64))
    assert batch["images"].tolist() == [2, 4] and batch["texts"] == ["a cat"]
    assert batch["pair_query"].tolist() == [0, 0]
    assert batch["pair_weight"].tolist() == [0.125, 0.125]


def schedule(**changes: int) -> BatchSchedule:
    values = dict(num_queries=11, num_captions=7, queries_per_batch=2, caption_batch_size=3,
                  batches_per_step=2, seed=5)  # fmt: skip
    return BatchSchedule(**{**values, **changes})


def test_an_epoch_has_every_query_and_fills_its_last_step_with_the_first_ones():
    batches = schedule()
    assert (batches.num_steps, batches.num_batches) == (3, 6)
    drawn = batches.queries(0)
    assert drawn.shape == (6, 2)
    assert sorted(drawn.flat[:11]) == list(range(11)) and drawn.flat[11] == drawn.flat[0]
    assert batches.captions(0).shape == (6, 3) and batches.captions(0).max() < 7


def test_epochs_and_seeds_give_different_but_reproducible_orders():
    assert schedule().queries(1).tolist() == schedule().queries(1).tolist()
    assert schedule().queries(1).tolist() != schedule().queries(0).tolist()
    assert schedule().queries(1).tolist() != schedule(seed=6).queries(1).tolist()
    same_size = schedule(num_queries=7, queries_per_batch=3)
    assert same_size.queries(0).tolist() != same_size.captions(0).tolist()


def test_a_schedule_without_captions_has_empty_caption_batches():
    assert schedule(num_captions=0, caption_batch_size=0).captions(0).shape == (6, 0)


def preferences() -> pa.Table:
    """Query a: a clear pair, a near tie, an inconsistent pair, and one that is both. Query b: a near tie."""
    return pa.table(
        {
            "query": ["a", "a", "a", "a", "b"],
            "p_winner": pa.array([0.9, 0.52, 0.9, 0.5, 0.549], pa.float32()),
            "consistent": [True, True, False, False, True],
            "source": ["lmm_pair", "lmm_pair", "lmm_pair", "lmm_pair", "human"],
        }
    )


def test_weights_of_near_ties_and_inconsistent_pairs_multiply():
    settings = Align(near_tie_weight=0.5, inconsistent_weight=0.25, human_weight=1)
    weighed = weigh_pairs(preferences(), settings)
    assert weighed["weight"].to_pylist() == [1.0, 0.5, 0.25, 0.125, 0.5]
    assert weighed["weight"].type == pa.float32()
    assert weighed.drop_columns("weight").equals(preferences())


def test_pairs_of_weight_zero_are_dropped_with_queries_that_have_no_others():
    no_ties = weigh_pairs(preferences(), Align(near_tie_weight=0, inconsistent_weight=1, human_weight=1))
    assert no_ties["query"].to_pylist() == ["a", "a"] and no_ties["weight"].to_pylist() == [1.0, 1.0]
    clear = weigh_pairs(preferences(), Align(near_tie_weight=0, inconsistent_weight=0, human_weight=1))
    assert clear["consistent"].to_pylist() == [True] and clear["query"].to_pylist() == ["a"]


def test_human_choices_have_the_weight_of_the_profile():
    weights = [
        weigh_pairs(preferences(), Align(human_weight=weight))["weight"].to_pylist() for weight in (3, 0)
    ]
    assert weights == [[1.0, 0.5, 0.5, 0.25, 1.5], [1.0, 0.5, 0.5, 0.25]]


def test_preferences_that_all_have_weight_zero_are_refused():
    near = preferences().slice(4)
    assert weigh_pairs(near, Align()).num_rows == 1
    with pytest.raises(UserError, match=r"All 1 preferences have weight 0: .* align.near_tie_weight is 0, "):
        weigh_pairs(near, Align(near_tie_weight=0))
    with pytest.raises(UserError, match=r"align\.human_weight 0: raise these weights"):
        weigh_pairs(near, Align(human_weight=0))


def pairs(rows: list[tuple[str, str, str, float]], weights: list[float] | None = None) -> pa.Table:
    names = ("query", "winner", "loser", "p_winner")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return pa.table({**columns, "weight": pa.array(weights or [1.0] * len(rows), pa.float32())})


def group(table: pa.Table, *, limit: int = 200, cap: float = 200, seed: int = 0) -> dict[str, list]:
    return group_pairs(table, max_pairs_per_query=limit, evidence_cap=cap, seed=seed).to_pydict()


def test_grouping_pairs_by_query_does_not_depend_on_the_order_of_rows():
    rows = [("b", "x", "y", 1.0), ("a", "z", "y", 0.8), ("b", "x", "w", 0.9), ("a", "x", "z", 0.7)]
    grouped = group(pairs(rows, [1, 0.25, 0.5, 0.75]), cap=1)
    assert grouped == {
        "query": ["a", "b"],
        "winner": [["x", "z"], ["x", "x"]],
        "loser": [["z", "y"], ["w", "y"]],
        "p_winner": [[0.7, 0.8], [0.9, 1.0]],
        "weight": [[0.75, 0.25], pytest.approx([1 / 3, 2 / 3])],
    }
    assert grouped == group(pairs(rows[::-1], [0.75, 0.5, 0.25, 1]), cap=1)


def test_a_pair_from_two_judges_is_kept_twice_in_a_fixed_order():
    rows = [("a", "x", "y", 0.9), ("a", "x", "y", 0.65), ("a", "y", "x", 0.65)]
    grouped = group(pairs(rows))
    assert grouped["winner"] == [["x", "x", "y"]] and grouped["p_winner"] == [[0.65, 0.9, 0.65]]
    assert grouped == group(pairs(rows[::-1]))


def test_a_query_with_too_many_pairs_keeps_a_seeded_sample_and_its_weight():
    rows = [("many", f"w{index:03d}", "loser", 1.0) for index in range(300)] + [("one", "w", "l", 1.0)]
    kept, again, other = (group(pairs(rows), limit=20, cap=1, seed=seed)["winner"] for seed in (1, 1, 2))
    assert [len(winners) for winners in kept] == [20, 1]
    assert len(set(kept[0])) == 20 and kept == again and kept != other
    assert query_weights(pairs(rows), limit=20, cap=1) == pytest.approx({"many": 1, "one": 1})
    assert query_weights(pairs(rows), limit=20, cap=300)["many"] == pytest.approx(
        300 * query_weights(pairs(rows), limit=20, cap=300)["one"]
    )


def query_weights(table: pa.Table, **options) -> dict[str, float]:
    """Each query's own weight: the sum over its pairs."""
    grouped = group(table, **options)
    return dict(zip(grouped["query"], map(sum, grouped["weight"]), strict=True))


def judged(query: str, count: int) -> list[tuple[str, str, str, float]]:
    return [(query, f"w{index:03d}", "loser", 0.9) for index in range(count)]


def test_a_click_weighs_less_than_two_hundred_judged_pairs():
    table = pairs(judged("click", 1) + judged("some", 50) + judged("full", 200) + judged("more", 250))
    found = query_weights(table)
    assert [found[name] / found["full"] for name in ("click", "some", "more")] == pytest.approx(
        [1 / 200, 1 / 4, 1]
    )
    assert sum(found.values()) == pytest.approx(4)  # the mean is 1


def test_queries_of_equal_evidence_have_weight_one_whatever_the_cap():
    """Clicks alone train as much as judged queries alone."""
    clicks = pairs([pair for name in "abc" for pair in judged(name, 1)])
    for cap in (0.5, 1, 200):
        assert query_weights(clicks, cap=cap) == pytest.approx({"a": 1, "b": 1, "c": 1})


def weighed(changes: dict[str, dict], **settings) -> dict[str, float]:
    """Weights of queries with 20 pairs each, by the rows' changed values, relative to query "plain"."""
    plain = {"p_winner": 0.9, "consistent": True, "source": "lmm_score"}
    rows = [
        {"query": query, "winner": f"w{index}", "loser": "l", **plain, **changed}
        for query, changed in {"plain": {}, **changes}.items()
        for index in range(20)
    ]
    found = query_weights(weigh_pairs(pa.Table.from_pylist(rows), Align(**settings)))
    return {query: found[query] / found["plain"] for query in changes}


def test_weights_of_pairs_act_across_queries_whose_pairs_are_all_alike():
    human, near = {"source": "human"}, {"p_winner": 0.51}
    changes = {"human": human, "near": near, "torn": {"consistent": False}, "human near": {**human, **near}}
    settings = {"human_weight": 3, "near_tie_weight": 0.5, "inconsistent_weight": 0.25}
    expected = {"human": 3, "near": 0.5, "torn": 0.25, "human near": 1.5}
    assert weighed(changes, **settings) == pytest.approx(expected)


def test_human_weight_raises_a_query_to_the_cap_and_no_further():
    assert weighed({"human": {"source": "human"}}, human_weight=50) == pytest.approx({"human": 10})


def test_fully_judged_query_of_the_mini_profile_has_full_weight():
    profile = load_profile("mini")
    rows, columns = profile.label.rows, profile.label.columns
    num_pairs = math.comb(rows + 1, 2) * math.comb(columns + 1, 2) - rows * columns
    assert num_pairs == profile.align.evidence_cap == 200
