"""Training data and tensors of the mini judge, compared with the processor and model of transformers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from actors.judge import CRITERIA
from lab.pretrain.judge import forward, queries, questions
from lab.pretrain.judge import model as judge_model
from lab.pretrain.judge import scenes as judge_scenes
from lab.pretrain.judge.prompts import IGNORED, PromptEncoder
from lab.studio.latents import is_accurate, sample_latents, true_accuracy, true_aesthetics


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(0)
    return [sample_latents(rng) for _ in range(40)]


@pytest.fixture(scope="module")
def tokenizer():
    return judge_model.train_tokenizer(questions.tokenizer_corpus(np.random.default_rng(0), 100), 600)


@pytest.fixture(scope="module")
def model(tokenizer):
    sizes = {"vision_width": 64, "vision_depth": 1, "text_width": 64, "text_depth": 1}
    return judge_model.make_model(judge_model.make_config(tokenizer, **sizes), seed=0).eval()


@pytest.mark.parametrize("value", [0.0, 0.1, 0.5, 0.83, 1.0])
def test_rating_target_has_the_rating_as_its_expectation(value):
    target = questions.rating_target(value)
    assert sum(target.values()) == pytest.approx(1.0) and set(target) <= set("12345")
    assert sum(int(digit) * p for digit, p in target.items()) == pytest.approx(1 + 4 * value)


def test_comparison_target_is_symmetric_and_grows_with_the_difference():
    assert questions.comparison_target(0.4, 0.4, 8.0)["A"] == 0.5
    better, worse = (
        questions.comparison_target(0.9, 0.4, 8.0),
        questions.comparison_target(0.4, 0.9, 8.0),
    )
    assert better["A"] == pytest.approx(worse["B"]) and better["A"] > 0.9


def test_matching_queries_match_and_near_misses_do_not(scenes):
    rng = np.random.default_rng(1)
    assert all(is_accurate(queries.matching_query(scene, rng), scene) for scene in scenes)
    near_misses = [true_accuracy(queries.near_miss_query(scene, rng), scene) for scene in scenes]
    # A count that changes to one is not named, so such a query still matches; all others are inaccurate.
    assert np.mean(np.array(near_misses) < 1.0) > 0.85 and max(near_misses) <= 1.0


def test_one_wrong_attribute_gives_a_value_below_one_half():
    scene = sample_latents(np.random.default_rng(0), "dog")
    other = "purple" if scene.colour != "purple" else "red"
    assert queries.accuracy_value(f"{scene.colour} dog", scene) == 1.0
    assert queries.accuracy_value(f"{other} dog", scene) < 0.5
    assert queries.accuracy_value("cat", scene) == 0.0
    assert queries.overall_value("dog", scene) == 0.25 + 0.75 * true_aesthetics(scene)


def test_a_batch_has_questions_of_every_kind_and_comparisons_in_both_orders(scenes):
    of_kinds = questions.sample_questions(np.random.default_rng(0), scenes, num_pairs=5)
    assert len(of_kinds["accuracy"]) == 40 and len(of_kinds["aesthetics"]) == 10
    assert len(of_kinds["compare"]) == 2 * (5 + 5 + 2) and len(CRITERIA) == 3  # fewer by beauty
    for question, swapped in zip(of_kinds["compare"][::2], of_kinds["compare"][1::2], strict=True):
        assert question.images[0] != question.images[1] and swapped.images == question.images[::-1]
        assert sum(question.answer.values()) == pytest.approx(1.0)
        assert swapped.answer == {"A": question.answer["B"], "B": question.answer["A"]}
        assert [truths for _, truths in swapped.phrases] == [truths[::-1] for _, truths in question.phrases]
    assert all(question.text and not question.answer for question in of_kinds["describe"])


def test_patches_equal_those_of_the_processor(tokenizer):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    processor = judge_model.make_processor(tokenizer)
    images = [Image.fromarray(image) for image in pixels]
    expected = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    assert torch.allclose(forward.patches(pixels), expected, atol=1e-5)


def test_batched_forward_pass_equals_that_of_transformers(tokenizer, model, scenes):
    """Two prompts of different lengths with shared images and right padding get the same scores."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    one = questions.rate_aesthetics(scenes[0], 0)
    two = questions.compare(np.random.default_rng(0), "overall", scenes, 1, 0)
    prompts = PromptEncoder(tokenizer).encode([one, two])
    processor = judge_model.make_processor(tokenizer)
    with torch.no_grad():
        states = forward.hidden_states(model, prompts, forward.visual_tokens(model, pixels))
        ours = model.lm_head(states[torch.arange(2), prompts.last])
        for row, question in enumerate((one, two)):
            text = processor.apply_chat_template(
                question.messages, tokenize=False, add_generation_prompt=True
            )
            images = [Image.fromarray(pixels[slot]) for slot in question.images]
            inputs = processor(text=[text], images=images, return_tensors="pt")
            assert torch.allclose(ours[row], model(**inputs).logits[0, -1], atol=1e-4)


def test_patch_embedding_as_a_product_equals_the_convolution(model):
    patches = torch.randn(8, 3 * 2 * 14 * 14)
    convolution = model.model.visual.patch_embed
    product = forward.PatchLinear(convolution.proj)
    assert torch.allclose(product(patches), convolution(patches), atol=1e-5)


def test_answer_loss_depends_on_the_last_token_only(tokenizer, model, scenes):
    encoder = PromptEncoder(tokenizer)
    prompts = encoder.encode([questions.rate_aesthetics(scenes[0], 0)])
    states = torch.zeros(1, prompts.input_ids.shape[1], 64)
    uniform = forward.answer_loss(model, prompts, states)
    assert uniform.item() == pytest.approx(np.log(len(tokenizer)), rel=1e-4)  # over the vocabulary
    states[0, : prompts.last[0]] = 100.0  # everything before the answer
    assert forward.answer_loss(model, prompts, states).item() == pytest.approx(uniform.item())


def test_order_loss_penalises_contradicting_orders():
    loss = forward.order_loss(torch.tensor([0.9, 0.1, 0.9, 0.6]))
    assert loss.item() == pytest.approx((0.0 + 0.25) / 2)


def test_a_description_is_trained_token_by_token(tokenizer, scenes):
    question = questions.describe(np.random.default_rng(0), scenes[0], 0)
    prompts = PromptEncoder(tokenizer).encode([question])
    words = prompts.words[0][prompts.words[0] != IGNORED]
    assert tokenizer.decode(words) == question.text + "<|im_end|>"
    first = int((prompts.words[0] != IGNORED).nonzero()[0])
    assert prompts.last[0] == first  # the last token of the prompt predicts the first word


def test_a_matching_query_is_trained_like_a_caption(tokenizer, scenes):
    asked = questions.sample_accuracy(np.random.default_rng(0), scenes)
    prompts = PromptEncoder(tokenizer).encode(asked)
    for row, question in enumerate(asked):
        trained = prompts.words[row][prompts.words[row] != IGNORED]
        assert tokenizer.decode(trained) == (question.query if question.is_accurate else "")
    assert 5 < sum(question.is_accurate for question in asked) < 35


@pytest.mark.parametrize("kind", ["accuracy", "compare", "together"])
def test_truth_of_a_phrase_is_read_at_its_last_token(tokenizer, scenes, kind):
    asked = questions.sample_questions(np.random.default_rng(0), scenes, num_pairs=48)[kind]
    prompts = PromptEncoder(tokenizer).encode(asked)
    expected = [(row, *phrase) for row, question in enumerate(asked) for phrase in question.phrases]
    assert len(expected) == len(prompts.phrase_truths) > 8
    for (row, phrase, truths), end, encoded in zip(
        expected, prompts.phrase_ends, prompts.phrase_truths, strict=True
    ):
        assert end[0] == row
        assert tokenizer.decode(prompts.input_ids[row, : end[1] + 1]).endswith(phrase)
        assert encoded[: len(truths)].bool().tolist() == list(truths)
        assert encoded.isnan().sum() == 2 - len(truths)


def test_phrases_are_true_or_false_for_each_scene_separately():
    rng = np.random.default_rng(0)
    dog, cat = sample_latents(rng, "dog"), sample_latents(rng, "cat")
    cat = replace(cat, colour=dog.colour)
    parts = {"article": "a", "colour": dog.colour, "subject": "puppy"}
    truths = queries.phrase_truths(parts, (dog, cat))
    assert truths == ((dog.colour, (True, True)), ("puppy", (True, False)))


def test_augmented_scenes_are_mirrored_and_shifted_with_their_labels(scenes):
    pixels = np.zeros((len(scenes), judge_model.IMAGE_PX, judge_model.IMAGE_PX, 3), np.uint8)
    pixels[:, :, 8:12] = 255  # a bar on the left
    drawn = judge_scenes.label_scenes(list(scenes), pixels)
    batch = judge_scenes.augmented(drawn, np.arange(len(scenes)), np.random.default_rng(0))
    mirrored = batch.pixels[:, :, judge_model.IMAGE_PX // 2 :].any(axis=(1, 2, 3))
    assert 5 < mirrored.sum() < len(scenes) - 5
    for before, after, flipped in zip(scenes, batch.latents, mirrored, strict=True):
        assert after.place == (judge_scenes.MIRRORED[before.place] if flipped else before.place)
        assert after == replace(before, place=after.place)
    assert drawn.pixels[:, :, 8:12].all()  # the drawn scenes are not changed


def test_batched_image_attention_equals_the_original(model):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    plain = judge_model.make_model(model.config, 0)
    before = forward.visual_tokens(plain, pixels)
    forward.speed_up(plain)
    assert torch.allclose(forward.visual_tokens(plain, pixels), before, atol=1e-4)


def test_each_part_of_a_query_matches_or_differs():
    scene = sample_latents(np.random.default_rng(0), "dog")
    other = "purple" if scene.colour != "purple" else "red"
    assert queries.part_matches("dog", scene) == (1, 0, 0, 0, 0)
    assert queries.part_matches(f"{other} dog", scene) == (1, 2, 0, 0, 0)
    assert queries.part_matches(f"{scene.colour} cat", scene) == (2, 1, 0, 0, 0)


def test_words_of_a_scene_become_a_uniform_distribution(tokenizer, model, scenes):
    bags = PromptEncoder(tokenizer).bags(
        [queries.descriptive_words(scene, np.random.default_rng(0)) for scene in scenes[:3]]
    )
    assert torch.allclose(bags.sum(-1), torch.ones(3)) and (bags > 0).sum(-1).min() >= 4
    uniform = forward.word_loss(model, torch.zeros(3, judge_model.TOKENS_PER_IMAGE, 64), bags)
    assert uniform.item() == pytest.approx(np.log(len(tokenizer)), rel=1e-4)


def test_answers_are_single_tokens(tokenizer):
    encoder = PromptEncoder(tokenizer)
    assert len(set(encoder.token_ids(["1", "2", "3", "4", "5", "A", "B"]))) == 7
    with pytest.raises(ValueError, match="single tokens"):
        encoder.token_ids(["not one token"])


def test_a_saved_judge_loads_with_the_same_weights(tokenizer, model, tmp_path):
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    folder = judge_model.save(model, judge_model.make_processor(tokenizer), tmp_path / "judge")
    loaded = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    for name, tensor in model.state_dict().items():
        assert torch.allclose(loaded.state_dict()[name], tensor, atol=1e-2), name
    assert AutoProcessor.from_pretrained(folder).tokenizer.get_vocab() == tokenizer.get_vocab()
