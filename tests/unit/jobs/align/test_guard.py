"""The guard: which captions are held out, how recall is measured, and how alpha is chosen."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from actors.caption_pairs import part_of
from actors.encoder import Encoder
from cluster.errors import UserError
from cluster.profile import Align, Guard
from jobs.align.guard import (
    ALPHAS,
    CaptionPairs,
    GuardSet,
    alpha_curve,
    guard_recalls,
    hold_out,
    interpolate,
    largest_alpha,
    outcome,
    recalls,
)
from jobs.align.prepare import run_name


def captions(rows: list[tuple[str, str]]) -> pa.Table:
    images, texts = zip(*rows, strict=True)
    return pa.table({"image_id": list(images), "caption": list(texts)})


def image(index: int) -> str:
    """Of the part "guard" if the last two digits of `index` are 00 to 04, "test" if they are 05 to 09."""
    return f"{index:08x}"


def numbered(count: int) -> pa.Table:
    """`count` images, each with a short caption that ten images share, and a unique long one."""
    short = [(image(index), f"photo {index % (count // 10)}") for index in range(count)]
    return captions(short + [(image(index), f"a photo of scene {index:04d}") for index in range(count)])


def parts(table: pa.Table) -> set[str]:
    return {part_of(image_id) for image_id in table["image_id"].to_pylist()}


def test_training_pairs_share_no_image_and_no_caption_with_the_guard_set():
    split = hold_out(numbered(1000), 40, seed=3)
    held_out, training = split.held_out.to_pydict(), split.training.to_pydict()
    assert len(set(held_out["image_id"])) == len(set(held_out["caption"])) == 40
    # Each image with its own longest caption.
    assert held_out["caption"] == [f"a photo of scene {int(index, 16):04d}" for index in held_out["image_id"]]
    assert parts(split.held_out) == {"guard"} and parts(split.training) == {"train"}
    assert not set(held_out["caption"]) & set(training["caption"])
    assert split.training.num_rows == 2 * 900


def test_a_shared_caption_is_held_out_once_and_not_trained_on():
    shared = captions([(image(index), f"photo {index // 2}") for index in range(4000)])  # two each
    split = hold_out(shared, 256, seed=0)
    # Of the images 0 to 9, 0 to 4 are the guard's and have three captions; 5 shares the third one.
    assert split.held_out.num_rows == len(set(split.held_out["caption"].to_pylist())) == 3 * 40
    assert split.training.num_rows == 4000 * 0.9
    across = captions([(image(index), f"photo {index % 1000}") for index in range(2000)])
    split = hold_out(across, 40, seed=0)
    assert split.training.num_rows == 1800  # a shared caption is shared within its part here


def test_training_images_with_a_caption_of_the_guard_set_do_not_train():
    pairs = captions([(image(index), f"photo {index % 990}") for index in range(1000)])
    split = hold_out(pairs, 256, seed=0)
    # Image 990 shares its caption with image 0 of the guard, and so do 991 to 994.
    assert split.training.num_rows == 900 - 5
    assert not set(split.held_out["caption"].to_pylist()) & set(split.training["caption"].to_pylist())


def test_the_guard_set_depends_on_the_seed_and_not_on_the_order_of_rows():
    pairs = numbered(1000)
    one = hold_out(pairs, 40, seed=1)
    assert one.held_out.equals(hold_out(pairs, 40, seed=1).held_out)
    backwards = hold_out(pairs.take(np.arange(pairs.num_rows)[::-1]), 40, seed=1)
    assert one.held_out.equals(backwards.held_out)
    assert not one.held_out.equals(hold_out(pairs, 40, seed=2).held_out)


@pytest.mark.parametrize(
    ("num_images", "wanted", "guard", "guard_parts"),
    [
        (1000, 40, 40, {"guard"}),
        (1000, 256, 50, {"guard"}),
        (640, 256, 35, {"guard"}),
        (200, 256, 190 // 4, {"guard", "train"}),
        (138, 256, 128 // 4, {"guard", "train"}),
        (137, 256, 0, set()),
        (30, 256, 0, set()),
        (1000, 31, 0, set()),
        (1000, 0, 0, set()),
    ],
)
def test_a_small_collection_gives_a_quarter_of_its_captions_to_the_guard(
    num_images, wanted, guard, guard_parts
):
    split = hold_out(captions([(image(index), f"scene {index}") for index in range(num_images)]), wanted, 0)
    assert (split.held_out.num_rows, parts(split.held_out)) == (guard, guard_parts)
    ids = [image(index) for index in range(num_images)]
    training = {image_id for image_id in ids if part_of(image_id) == "train"}
    held_out = set(split.held_out["image_id"].to_pylist())
    assert set(split.training["image_id"].to_pylist()) == training - held_out
    # The part "guard" is used up before any image that would have trained.
    assert "train" not in guard_parts or {i for i in ids if part_of(i) == "guard"} <= held_out


def test_without_captions_nothing_is_held_out():
    empty = captions([("0", "scene")]).slice(0, 0)
    assert hold_out(empty, 256, seed=0).held_out.num_rows == 0


def test_recall_equals_a_naive_loop_over_both_directions_with_ties_counted_against_the_encoder():
    rng = np.random.default_rng(0)
    # Small integers give exact scores and many ties.
    texts, images = (rng.integers(-2, 3, (57, 3)).astype(np.float32) for _ in range(2))
    scores = texts @ images.T
    nearer = [
        sum(row[j] >= row[i] for j in range(57) if j != i)
        for matrix in (scores, scores.T)
        for i, row in enumerate(matrix)
    ]
    found = recalls(texts, images)
    assert found == {f"recall@{k}": np.mean([count < k for count in nearer]) for k in (1, 10)}
    assert 0 < found["recall@1"] < found["recall@10"] < 0.9


def test_recall_of_a_perfect_a_constant_and_a_nan_encoder():
    identity, ones = np.eye(40, dtype=np.float32), np.ones((40, 3), np.float32)
    assert recalls(identity, identity) == {"recall@1": 1, "recall@10": 1}
    assert recalls(ones, ones) == recalls(ones * np.nan, ones) == {"recall@1": 0, "recall@10": 0}


def test_curve_measures_the_interpolated_encoder_at_every_alpha(tiny_encoder_folder):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (18, 3, 96, 96)).astype(np.uint8)
    guard = GuardSet([f"photo {index}" for index in range(14)], np.arange(4, 18, dtype=np.int32))
    reference = Encoder.load(tiny_encoder_folder, num_threads=1)
    start = {name: value.clone() for name, value in reference.model.state_dict().items()}
    noise = torch.Generator().manual_seed(0)
    learned = {
        name: value.detach() + 0.3 * torch.randn(value.shape, generator=noise)
        for name, value in reference.model.named_parameters()
        if name != "logit_scale"
    }
    curve = alpha_curve(reference, learned, guard, lambda rows: pixels[rows])
    assert [point["alpha"] for point in curve] == list(ALPHAS) == pytest.approx(np.arange(21) / 20)
    for index in (0, 10, 20):
        subject = Encoder.load(tiny_encoder_folder, num_threads=1)
        interpolate(subject.model, start, learned, ALPHAS[index])
        weights = subject.model.state_dict()
        for name, value in learned.items():
            expected = (1 - ALPHAS[index]) * start[name] + ALPHAS[index] * value
            torch.testing.assert_close(weights[name], expected)
        texts, images = subject.encode_texts(guard.captions), subject.encode_images(pixels[4:])
        assert curve[index] == {"alpha": ALPHAS[index], **recalls(texts, images)}
        # In mode `text` the images are vectors.
        assert guard_recalls(subject, guard, lambda rows: images[rows - 4]) == recalls(texts, images)  # noqa: B023


def a_curve(*losses: float, at_10: float = 0.0) -> list[dict[str, float]]:
    """A curve that loses these shares of recall@1 from the first step on, the last one until the end."""
    lost = [0.0, *losses, *[losses[-1]] * (20 - len(losses))]
    return [
        {"alpha": alpha, "recall@1": 0.8 - loss, "recall@10": 0.95 - at_10 * alpha}
        for alpha, loss in zip(ALPHAS, lost, strict=True)
    ]


@pytest.mark.parametrize(
    ("curve", "alpha"),
    [
        (a_curve(0.0), 1.0),
        (a_curve(-0.02, 0.01), 1.0),
        (a_curve(0.01, 0.03, 0.031), 0.1),  # a loss equal to the limit is allowed
        (a_curve(0.01, 0.02, 0.04, 0.02), 0.1),  # no step beyond one that loses too much
        (a_curve(0.0, at_10=0.06), 0.5),  # recall@10 counts as well
        (a_curve(0.04), 0.05),  # the smallest step, which `outcome` then refuses
    ],
)
def test_auto_takes_the_largest_step_that_like_all_smaller_ones_stays_within_the_limit(curve, alpha):
    assert largest_alpha(curve, 0.03) == alpha


def report_of(curve: list[dict[str, float]], *, num_epochs: int = 3, **settings) -> dict:
    return outcome(curve, Guard(**settings), num_captions=64, num_epochs=num_epochs)


def test_report_has_alpha_and_the_recall_of_the_registered_weights():
    curve = a_curve(0.01, 0.02, 0.04, at_10=0.1)
    found = report_of(curve)
    assert (found["wise_ft_alpha"], found["num_guard_captions"]) == (0.1, 64)
    assert found["alpha_curve"] is curve
    assert found["recall_drop"] == pytest.approx(0.02)
    assert found["recall@1"] == pytest.approx({"before": 0.8, "after": 0.78})
    assert found["recall@10"] == pytest.approx({"before": 0.95, "after": 0.94})


def test_a_number_as_alpha_is_kept_and_measured_between_two_steps():
    found = report_of(a_curve(0.01, 0.02, 0.04), wise_ft_alpha=0.075)
    assert (found["wise_ft_alpha"], found["recall_drop"]) == (0.075, pytest.approx(0.015))
    assert report_of(a_curve(0.01), wise_ft_alpha=1)["wise_ft_alpha"] == 1
    with pytest.raises(
        UserError, match=r"cost 0.040 of recall@1 on .* alpha of 1.*: set guard.wise_ft_alpha to"
    ):
        report_of(a_curve(0.04), wise_ft_alpha=1)


@pytest.mark.parametrize(("setting", "alpha"), [("auto", 1.0), (0.5, 0.5)])
def test_without_a_guard_set_recall_is_unknown_and_auto_keeps_the_trained_weights(setting, alpha):
    found = outcome([], Guard(wise_ft_alpha=setting), num_captions=0, num_epochs=1)
    unknown = {"before": None, "after": None}
    assert (found["wise_ft_alpha"], found["recall_drop"]) == (alpha, None)
    assert found["recall@1"] == found["recall@10"] == unknown


def test_a_run_whose_smallest_step_exceeds_the_limit_is_refused_with_advice():
    with pytest.raises(UserError) as refused:
        report_of(a_curve(0.5))
    message = str(refused.value)
    parts = ["0.500 of recall@1", "64 held-out", "0.800 before", "0.300 after", "alpha of 0.05",
             "max_recall_drop allows 0.03", "set a smaller align.learning_rate", "fewer align.epochs",
             "larger align.pretrain_weight", "larger guard.max_recall_drop"]  # fmt: skip
    assert [part for part in parts if part not in message] == []
    assert "\n" not in message and message.endswith(".")
    with pytest.raises(UserError, match=r"cost 0.100 of recall@10 "):
        report_of(a_curve(0.0, at_10=2), num_epochs=1)


def test_the_name_of_a_run_depends_on_everything_that_changes_training():
    pairs = pa.table({"query": ["a", "b"], "consistent": [True, False], "weight": [1.0, 0.5]})
    split = hold_out(numbered(1000), 40, seed=0)
    plain = ("parent", "fp32", Align(), pairs, split)
    swapped = CaptionPairs(split.held_out, split.training)
    fewer = CaptionPairs(split.training, split.held_out.slice(1))
    consistent = pairs.set_column(1, "consistent", pa.array([True, True]))
    changed = [
        ("parent", "bf16", Align(), pairs, split),
        ("parent", "fp32", Align(near_tie_weight=0.4), pairs, split),
        ("parent", "fp32", Align(inconsistent_weight=0.4), pairs, split),
        ("parent", "fp32", Align(evidence_cap=100), pairs, split),
        ("parent", "fp32", Align(), consistent, split),
        ("parent", "fp32", Align(), pairs, swapped),
        ("parent", "fp32", Align(), pairs, fewer),
    ]
    assert run_name(*plain) == run_name("parent", "fp32", Align(), pairs.take([1, 0]), split)
    assert len({run_name(*each) for each in (plain, *changed)}) == 1 + len(changed)
