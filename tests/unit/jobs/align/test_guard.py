"""The guard: which captions are held out, how recall is measured, and what follows from it."""

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import UserError
from cluster.profile import Align
from jobs.align.guard import CaptionPairs, exceeds, hold_out, outcome, recall_at_10
from jobs.align.prepare import run_name


def captions(rows: list[tuple[str, str]]) -> pa.Table:
    images, texts = zip(*rows, strict=True)
    return pa.table({"image_id": list(images), "caption": list(texts)})


def numbered(count: int) -> pa.Table:
    """`count` images, each with a short caption that ten images share, and a unique long one."""
    short = [(f"i{index:03d}", f"photo {index % (count // 10)}") for index in range(count)]
    return captions(short + [(f"i{index:03d}", f"a photo of scene {index:03d}") for index in range(count)])


def test_training_pairs_share_no_image_and_no_caption_with_the_guard_set():
    pairs = numbered(200)
    split = hold_out(pairs, 40, seed=3)
    held_out, training = split.held_out.to_pydict(), split.training.to_pydict()
    assert len(set(held_out["image_id"])) == len(set(held_out["caption"])) == 40
    # Each image with its own longest caption.
    assert held_out["caption"] == [f"a photo of scene {image[1:]}" for image in held_out["image_id"]]
    assert not set(held_out["image_id"]) & set(training["image_id"])
    assert not set(held_out["caption"]) & set(training["caption"])
    assert split.training.num_rows == 2 * 160


def test_a_shared_caption_is_held_out_once_and_not_trained_on():
    shared = captions([(f"i{index:03d}", f"photo {index // 2}") for index in range(400)])  # two each
    split = hold_out(shared, 50, seed=0)
    assert split.held_out.num_rows == 50
    assert len(set(split.held_out["caption"].to_pylist())) == 50
    assert split.training.num_rows == 400 - 100  # without the images that share one of them
    assert hold_out(shared.slice(0, 160), 50, seed=0).held_out.num_rows == 0  # 80 captions: a quarter is 20


def test_the_guard_set_depends_on_the_seed_and_not_on_the_order_of_rows():
    pairs = numbered(200)
    one = hold_out(pairs, 40, seed=1)
    assert one.held_out.equals(hold_out(pairs, 40, seed=1).held_out)
    backwards = hold_out(pairs.take(np.arange(pairs.num_rows)[::-1]), 40, seed=1)
    assert one.held_out.equals(backwards.held_out)
    assert not one.held_out.equals(hold_out(pairs, 40, seed=2).held_out)


@pytest.mark.parametrize(
    ("num_images", "wanted", "held_out"),
    [(200, 40, 40), (200, 256, 50), (128, 256, 32), (127, 256, 0), (200, 31, 0), (200, 0, 0)],
)
def test_at_most_a_quarter_is_held_out_and_nothing_below_32(num_images, wanted, held_out):
    pairs = captions([(f"i{index}", f"scene {index}") for index in range(num_images)])
    split = hold_out(pairs, wanted, seed=0)
    assert split.held_out.num_rows == held_out
    assert split.training.num_rows == num_images - held_out


def test_without_captions_nothing_is_held_out():
    empty = captions([("i", "scene")]).slice(0, 0)
    assert hold_out(empty, 256, seed=0).held_out.num_rows == 0


def test_recall_equals_a_naive_loop_with_ties_counted_against_the_encoder():
    rng = np.random.default_rng(0)
    # Small integers give exact scores and many ties.
    texts, images = (rng.integers(-2, 3, (57, 3)).astype(np.float32) for _ in range(2))
    nearer = [
        sum(texts[i] @ images[j] >= texts[i] @ images[i] for j in range(57) if j != i) for i in range(57)
    ]
    recall = np.mean([count < 10 for count in nearer])
    assert recall_at_10(texts, images) == recall and 0.1 < recall < 0.9


def test_recall_of_a_perfect_a_constant_and_a_nan_encoder():
    identity = np.eye(40, dtype=np.float32)
    assert recall_at_10(identity, identity) == 1.0
    assert recall_at_10(np.ones((40, 3), np.float32), np.ones((40, 3), np.float32)) == 0.0
    assert recall_at_10(np.full((40, 3), np.nan, np.float32), np.ones((40, 3), np.float32)) == 0.0


def test_a_drop_equal_to_the_limit_is_allowed():
    assert not exceeds(0.9, 0.87, 0.03)  # 0.030000000000000027 in floating point
    assert exceeds(0.9, 0.869, 0.03)
    assert not exceeds(0.9, 0.95, 0.0) and not exceeds(0.9, 0.9, 0.0)


def finished(recalls: list[float | None], *, before: float | None = 0.9, over_limit: bool = False) -> dict:
    epochs = [
        {"epoch": epoch, **({} if recall is None else {"recall@10": recall})}
        for epoch, recall in enumerate(recalls, start=1)
    ]
    return outcome(
        {"recall_before": before, "epochs": epochs, "over_limit": over_limit},
        num_captions=0 if before is None else 64, max_drop=0.03, num_epochs=3,
    )  # fmt: skip


def test_the_last_epoch_within_the_limit_is_kept():
    assert finished([0.91, 0.89, 0.88]) == {
        "kept_epoch": 3, "stopped_early": False, "num_guard_captions": 64,
        "recall@10": {"before": 0.9, "after": 0.88},
    }  # fmt: skip
    stopped = finished([0.91, 0.5], over_limit=True)
    assert (stopped["kept_epoch"], stopped["stopped_early"]) == (1, True)
    assert stopped["recall@10"] == {"before": 0.9, "after": 0.91}
    at_the_end = finished([0.91, 0.9, 0.5], over_limit=True)
    assert (at_the_end["kept_epoch"], at_the_end["stopped_early"]) == (2, False)
    unguarded = finished([None] * 3, before=None)
    assert unguarded["recall@10"] == {"before": None, "after": None} and unguarded["kept_epoch"] == 3


def test_a_run_whose_first_epoch_exceeds_the_limit_is_refused_with_advice():
    with pytest.raises(UserError) as refused:
        finished([0.4], over_limit=True)
    message = str(refused.value)
    parts = ["0.500", "64 held-out", "0.900 before", "0.400 after", "max_recall_drop allows 0.03",
             "smaller align.learning_rate", "fewer align.epochs", "larger align.pretrain_weight",
             "smaller guard.wise_ft_alpha"]  # fmt: skip
    assert [part for part in parts if part not in message] == []
    assert "\n" not in message and message.endswith(".")


def test_the_name_of_a_run_depends_on_everything_that_changes_training():
    pairs = pa.table({"query": ["a", "b"], "consistent": [True, False], "weight": [1.0, 0.5]})
    split = hold_out(numbered(200), 40, seed=0)
    plain = ("parent", "fp32", Align(), pairs, split, 0.03)
    swapped = CaptionPairs(split.held_out, split.training)
    fewer = CaptionPairs(split.training, split.held_out.slice(1))
    consistent = pairs.set_column(1, "consistent", pa.array([True, True]))
    changed = [
        ("parent", "bf16", Align(), pairs, split, 0.03),
        ("parent", "fp32", Align(near_tie_weight=0.4), pairs, split, 0.03),
        ("parent", "fp32", Align(inconsistent_weight=0.4), pairs, split, 0.03),
        ("parent", "fp32", Align(), consistent, split, 0.03),
        ("parent", "fp32", Align(), pairs, swapped, 0.03),
        ("parent", "fp32", Align(), pairs, fewer, 0.03),
        ("parent", "fp32", Align(), pairs, split, 0.04),
    ]
    assert run_name(*plain) == run_name("parent", "fp32", Align(), pairs.take([1, 0]), split, 0.03)
    assert len({run_name(*each) for each in (plain, *changed)}) == 1 + len(changed)
