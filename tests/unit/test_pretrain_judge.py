"""Training data and tensors of the small judge, against transformers' own processor and model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from actors.judge import CRITERIA
from lab.pretrain.judge import batch as judge_batch
from lab.pretrain.judge import model as judge_model
from lab.pretrain.judge import questions as judge_questions
from lab.pretrain.judge import scenes as judge_scenes
from lab.studio.latents import is_accurate, sample_latents, true_accuracy, true_aesthetics


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(0)
    return [sample_latents(rng) for _ in range(40)]


@pytest.fixture(scope="module")
def tokenizer():
    return judge_model.train_tokenizer(judge_questions.corpus(np.random.default_rng(0), 100), 600)


@pytest.fixture(scope="module")
def model(tokenizer):
    sizes = {"vision_width": 64, "vision_depth": 1, "text_width": 64, "text_depth": 1}
    return judge_model.make_model(judge_model.make_config(tokenizer, **sizes), seed=0).eval()


@pytest.mark.parametrize("value", [0.0, 0.1, 0.5, 0.83, 1.0])
def test_expectation_of_a_rating_target_is_the_rating(value):
    target = judge_questions.rating_target(value)
    assert sum(target.values()) == pytest.approx(1.0) and set(target) <= set("12345")
    assert sum(int(digit) * p for digit, p in target.items()) == pytest.approx(1 + 4 * value)


def test_comparison_target_is_symmetric_and_grows():
    assert judge_questions.comparison_target(0.4, 0.4, 8.0)["A"] == 0.5
    better, worse = (
        judge_questions.comparison_target(0.9, 0.4, 8.0),
        judge_questions.comparison_target(0.4, 0.9, 8.0),
    )
    assert better["A"] == pytest.approx(worse["B"]) and better["A"] > 0.9


def test_queries_fit_or_nearly_fit(scenes):
    rng = np.random.default_rng(1)
    assert all(is_accurate(judge_questions.ask(scene, rng), scene) for scene in scenes)
    nearly = [true_accuracy(judge_questions.ask_for_another(scene, rng), scene) for scene in scenes]
    # A changed count of one is not said, and so fits; everything else is wrong in something.
    assert np.mean(np.array(nearly) < 1.0) > 0.85 and max(nearly) <= 1.0


def test_one_wrong_attribute_falls_below_the_middle():
    scene = sample_latents(np.random.default_rng(0), "dog")
    other = "purple" if scene.colour != "purple" else "red"
    assert judge_questions.accuracy_value(f"{scene.colour} dog", scene) == 1.0
    assert judge_questions.accuracy_value(f"{other} dog", scene) < 0.5
    assert judge_questions.accuracy_value("cat", scene) == 0.0
    assert judge_questions.overall_value("dog", scene) == 0.25 + 0.75 * true_aesthetics(scene)


def test_questions_of_a_batch(scenes):
    questions = judge_questions.sample_questions(np.random.default_rng(0), scenes, num_pairs=5)
    assert len(questions["accuracy"]) == 40 and len(questions["aesthetics"]) == 10
    assert len(questions["compare"]) == 2 * (5 + 5 + 2) and len(CRITERIA) == 3  # fewer by beauty
    for question, turned in zip(questions["compare"][::2], questions["compare"][1::2], strict=True):
        assert question.images[0] != question.images[1] and turned.images == question.images[::-1]
        assert sum(question.answer.values()) == pytest.approx(1.0)
        assert turned.answer == {"A": question.answer["B"], "B": question.answer["A"]}
        assert [true for _, true in turned.claims] == [true[::-1] for _, true in question.claims]
    assert all(q.text and not q.answer for q in questions["describe"])


def test_patches_equal_the_processors(tokenizer):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    processor = judge_model.make_processor(tokenizer)
    images = [Image.fromarray(image) for image in pixels]
    wanted = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    assert torch.allclose(judge_batch.patches(pixels), wanted, atol=1e-5)


def test_batched_forward_equals_transformers_own(tokenizer, model, scenes):
    """Two prompts of different lengths, shared images, right padding: the same scores."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    one = judge_questions.rate_aesthetics(scenes[0], 0)
    two = judge_questions.compare(np.random.default_rng(0), "overall", scenes, 1, 0)
    prompts = judge_batch.PromptEncoder(tokenizer).encode([one, two])
    processor = judge_model.make_processor(tokenizer)
    with torch.no_grad():
        states = judge_batch.read(model, prompts, judge_batch.see(model, pixels))
        ours = model.lm_head(states[torch.arange(2), prompts.last])
        for row, question in enumerate((one, two)):
            text = processor.apply_chat_template(
                question.messages, tokenize=False, add_generation_prompt=True
            )
            images = [Image.fromarray(pixels[slot]) for slot in question.images]
            inputs = processor(text=[text], images=images, return_tensors="pt")
            assert torch.allclose(ours[row], model(**inputs).logits[0, -1], atol=1e-4)


def test_patch_product_equals_the_convolution(model):
    patches = torch.randn(8, 3 * 2 * 14 * 14)
    convolution = model.model.visual.patch_embed
    product = judge_batch.PatchLinear(convolution.proj)
    assert torch.allclose(product(patches), convolution(patches), atol=1e-5)


def test_losses_look_at_the_answer_alone(tokenizer, model, scenes):
    encoder = judge_batch.PromptEncoder(tokenizer)
    prompts = encoder.encode([judge_questions.rate_aesthetics(scenes[0], 0)])
    states = torch.zeros(1, prompts.input_ids.shape[1], 64)
    flat = judge_batch.answer_loss(model, prompts, states)
    assert flat.item() == pytest.approx(np.log(len(tokenizer)), rel=1e-4)  # uniform over the vocabulary
    states[0, : prompts.last[0]] = 100.0  # everything before the answer
    assert judge_batch.answer_loss(model, prompts, states).item() == pytest.approx(flat.item())


def test_orders_that_contradict_each_other_cost():
    loss = judge_batch.order_loss(torch.tensor([0.9, 0.1, 0.9, 0.6]))
    assert loss.item() == pytest.approx((0.0 + 0.25) / 2)


def test_descriptions_are_learned_word_by_word(tokenizer, scenes):
    question = judge_questions.describe(np.random.default_rng(0), scenes[0], 0)
    prompts = judge_batch.PromptEncoder(tokenizer).encode([question])
    words = prompts.words[0][prompts.words[0] != judge_batch.IGNORED]
    assert tokenizer.decode(words) == question.text + "<|im_end|>"
    first = int((prompts.words[0] != judge_batch.IGNORED).nonzero()[0])
    assert prompts.last[0] == first  # the word after the prompt's last token is the first to learn


def test_a_fitting_query_is_learned_as_a_caption(tokenizer, scenes):
    questions = judge_questions.sample_accuracy(np.random.default_rng(0), scenes)
    prompts = judge_batch.PromptEncoder(tokenizer).encode(questions)
    for row, question in enumerate(questions):
        learned = prompts.words[row][prompts.words[row] != judge_batch.IGNORED]
        assert tokenizer.decode(learned) == (question.query if question.fits else "")
    assert 5 < sum(question.fits for question in questions) < 35


@pytest.mark.parametrize("kind", ["accuracy", "compare", "together"])
def test_every_claim_is_told_where_its_phrase_ends(tokenizer, scenes, kind):
    questions = judge_questions.sample_questions(np.random.default_rng(0), scenes, num_pairs=48)[kind]
    prompts = judge_batch.PromptEncoder(tokenizer).encode(questions)
    told = [(row, *claim) for row, question in enumerate(questions) for claim in question.claims]
    assert len(told) == len(prompts.claims) > 8
    for (row, phrase, true), place, truth in zip(told, prompts.claim_places, prompts.claims, strict=True):
        assert place[0] == row
        assert tokenizer.decode(prompts.input_ids[row, : place[1] + 1]).endswith(phrase)
        assert truth[: len(true)].bool().tolist() == list(true)
        assert truth.isnan().sum() == 2 - len(true)


def test_claims_are_true_of_each_scene_apart():
    rng = np.random.default_rng(0)
    dog, cat = sample_latents(rng, "dog"), sample_latents(rng, "cat")
    cat = replace(cat, colour=dog.colour)
    parts = {"article": "a", "colour": dog.colour, "subject": "puppy"}
    assert judge_questions.claims(parts, (dog, cat)) == ((dog.colour, (True, True)), ("puppy", (True, False)))


def test_a_batch_is_mirrored_and_moved_with_its_truths(scenes):
    pixels = np.zeros((len(scenes), judge_model.IMAGE_PX, judge_model.IMAGE_PX, 3), np.uint8)
    pixels[:, :, 8:12] = 255  # a bar on the left
    drawn = judge_scenes.label_scenes(list(scenes), pixels)
    batch = judge_scenes.batch_of(drawn, np.arange(len(scenes)), np.random.default_rng(0))
    mirrored = batch.pixels[:, :, judge_model.IMAGE_PX // 2 :].any(axis=(1, 2, 3))
    assert 5 < mirrored.sum() < len(scenes) - 5
    for before, after, flipped in zip(scenes, batch.latents, mirrored, strict=True):
        assert after.place == (judge_scenes.MIRRORED[before.place] if flipped else before.place)
        assert after == replace(before, place=after.place)
    assert drawn.pixels[:, :, 8:12].all()  # what is drawn stays as it was


def test_whole_images_attend_as_the_original_does(model):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    plain = judge_model.make_model(model.config, 0)
    before = judge_batch.see(plain, pixels)
    judge_batch.speed_up(plain)
    assert torch.allclose(judge_batch.see(plain, pixels), before, atol=1e-4)


def test_matches_by_attribute():
    scene = sample_latents(np.random.default_rng(0), "dog")
    other = "purple" if scene.colour != "purple" else "red"
    assert judge_questions.matches("dog", scene) == (1, 0, 0, 0, 0)
    assert judge_questions.matches(f"{other} dog", scene) == (1, 2, 0, 0, 0)
    assert judge_questions.matches(f"{scene.colour} cat", scene) == (2, 1, 0, 0, 0)


def test_the_words_of_a_scene_make_a_bag(tokenizer, model, scenes):
    bags = judge_batch.PromptEncoder(tokenizer).bags(
        [judge_questions.name_all(scene, np.random.default_rng(0)) for scene in scenes[:3]]
    )
    assert torch.allclose(bags.sum(-1), torch.ones(3)) and (bags > 0).sum(-1).min() >= 4
    flat = judge_batch.word_loss(model, torch.zeros(3, judge_model.TOKENS_PER_IMAGE, 64), bags)
    assert flat.item() == pytest.approx(np.log(len(tokenizer)), rel=1e-4)


def test_answers_are_single_tokens(tokenizer):
    encoder = judge_batch.PromptEncoder(tokenizer)
    assert len(set(encoder.token_ids(["1", "2", "3", "4", "5", "A", "B"]))) == 7
    with pytest.raises(ValueError, match="single tokens"):
        encoder.token_ids(["not one token"])


def test_a_saved_judge_comes_back(tokenizer, model, tmp_path):
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    folder = judge_model.save(model, judge_model.make_processor(tokenizer), tmp_path / "judge")
    loaded = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    for name, tensor in model.state_dict().items():
        assert torch.allclose(loaded.state_dict()[name], tensor, atol=1e-2), name
    assert AutoProcessor.from_pretrained(folder).tokenizer.get_vocab() == tokenizer.get_vocab()
