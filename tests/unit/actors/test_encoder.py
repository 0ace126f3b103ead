"""The encoder: the vectors of open_clip, a stable fingerprint, folders that load again."""

import copy
import json
import os
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch
from pictures import gradient
from safetensors.torch import load_file, save_file
from tiny_encoder import write_tiny_encoder

from actors.encoder import WEIGHTS_NAME, EncodeImages, Encoder, encode_text, load_registered, save_encoder
from cluster.errors import UserError
from cluster.tables import EncoderRecord


@pytest.fixture(scope="module")
def encoder(tiny_encoder_folder) -> Encoder:
    return Encoder.load(tiny_encoder_folder, num_threads=1)


@pytest.fixture(scope="module")
def pixels(encoder) -> np.ndarray:
    return np.stack([encoder.pixels(gradient(110, 90, seed=seed)) for seed in range(5)])


def test_vectors_equal_plain_open_clip(encoder, tiny_encoder_folder):
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tiny_encoder_folder}")
    model.eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{tiny_encoder_folder}")(["a red boat", "dogs"])
    photo = gradient(200, 130)
    with torch.no_grad():
        image = model.encode_image(preprocess(photo)[None], normalize=True).numpy()
        texts = model.encode_text(tokens, normalize=True).numpy()
    np.testing.assert_allclose(encoder.encode_images(encoder.pixels(photo)[None]), image, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(["a red boat", "dogs"]), texts, atol=1e-5)


@pytest.mark.parametrize("pool_type", ["eos", "argmax", "last"])
def test_text_vectors_without_padding_equal_open_clip(pool_type):
    torch.manual_seed(0)
    text = {"context_length": 12, "vocab_size": 20, "width": 16, "heads": 2, "layers": 2}
    vision = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
    pooling = {"pool_type": pool_type, "eos_id": 19}
    model = open_clip.CLIP(8, open_clip.CLIPVisionCfg(**vision), open_clip.CLIPTextCfg(**text, **pooling))
    tokens = torch.tensor([[1, 4, 19, *[0] * 9], [1, 5, 6, 7, 8, 19, *[0] * 6]])
    weights = list(model.transformer.parameters())
    found, expected = encode_text(model, tokens), model.encode_text(tokens)
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad(vectors.square().sum(), weights) for vectors in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def with_tokenizer(encoder, name):
    changed = copy.copy(encoder)
    if name == "simple":
        changed.tokenizer = open_clip.SimpleTokenizer(context_length=encoder.tokenizer.context_length)
    return changed


@pytest.mark.parametrize("tokenizer", ["hf", "simple"])
@pytest.mark.parametrize("words", [["boat"], ["red", "sailboats"], ["a", "extraordinarily", "\u5e06\u8239"]])
def test_words_that_are_not_read_do_not_change_the_tokens(encoder, tokenizer, words):
    reading = with_tokenizer(encoder, tokenizer)
    text = words * 60
    read = reading.num_words_read("  ".join(text))
    assert 0 < read < len(text)
    whole = reading.tokenize([" ".join(text)])
    assert torch.equal(reading.tokenize([" ".join(text[: read + 1])]), whole)
    shorter = reading.tokenize([" ".join(text[: read - 1])])
    assert not torch.equal(shorter, whole)
    for count in (1, read - 1, read):
        assert reading.num_words_read(" ".join(text[:count])) == count
        assert reading.num_words_read(" ".join([*text[:count], *["boat"] * 80])) >= count


@pytest.mark.parametrize("tokenizer", ["hf", "simple"])
def test_word_longer_than_the_context_does_not_count_as_read(encoder, tokenizer):
    reading = with_tokenizer(encoder, tokenizer)
    assert reading.num_words_read("\u5e06\u8239" * 100) == 0
    assert [reading.num_words_read(text) for text in ("", " ", "boat", " red\nboat ")] == [0, 0, 1, 2]


def test_vectors_have_length_one(encoder, pixels):
    vectors = encoder.encode_images(pixels)
    assert vectors.shape == (5, encoder.dim) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert encoder.encode_texts([]).shape == (0, encoder.dim)


def test_batch_equals_single_calls(encoder, pixels):
    alone = np.concatenate([encoder.encode_images(one[None]) for one in pixels])
    np.testing.assert_allclose(encoder.encode_images(pixels), alone, atol=1e-5)


def test_features_carry_gradients(encoder, pixels):
    parameter = next(encoder.model.visual.parameters())
    encoder.image_features(torch.from_numpy(pixels)).sum().backward()
    assert parameter.grad is not None and parameter.grad.abs().sum() > 0
    encoder.model.zero_grad(set_to_none=True)


def test_temperature_is_the_inverse_of_the_logit_scale(encoder):
    assert encoder.temperature == pytest.approx(0.07, rel=1e-4)


def test_bf16_is_close_to_fp32_and_has_the_same_fingerprint(encoder, pixels, tiny_encoder_folder):
    half = Encoder.load(tiny_encoder_folder, precision="bf16")
    cosines = (half.encode_images(pixels) * encoder.encode_images(pixels)).sum(axis=1)
    assert cosines.min() > 0.99
    assert not np.array_equal(half.encode_images(pixels), encoder.encode_images(pixels))
    assert half.fingerprint == encoder.fingerprint


def test_fingerprint_does_not_depend_on_the_folder(encoder, tiny_encoder_folder, tmp_path):
    moved = shutil.copytree(tiny_encoder_folder, tmp_path / "elsewhere")
    again = Encoder.load(str(moved))
    again.encode_texts(["a padded call must not change it"])
    assert again.fingerprint == encoder.fingerprint
    assert len(encoder.fingerprint) == 16


@pytest.mark.parametrize(
    ("name", "value"), [("mean", [0.4] * 3), ("interpolation", "bilinear"), ("resize_mode", "squash")]
)
def test_fingerprint_depends_on_the_preprocessing(encoder, tiny_encoder_folder, tmp_path, name, value):
    folder = shutil.copytree(tiny_encoder_folder, tmp_path / "other")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"][name] = value
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert Encoder.load(str(folder)).fingerprint != encoder.fingerprint


def test_fingerprint_depends_on_weights_and_tokenizer(encoder, tiny_encoder_folder, tmp_path):
    folder = shutil.copytree(tiny_encoder_folder, tmp_path / "other")
    description = json.loads((folder / "tokenizer.json").read_text())
    description["model"]["merges"] = description["model"]["merges"][:-1]
    (folder / "tokenizer.json").write_text(json.dumps(description))
    other_weights = Encoder.load(write_tiny_encoder(tmp_path / "seed1", seed=1))
    assert Encoder.load(str(folder)).fingerprint != encoder.fingerprint
    assert other_weights.fingerprint != encoder.fingerprint
    assert other_weights.image_fingerprint != encoder.image_fingerprint


def test_saved_encoders_load_again_and_differ_by_their_weights(tiny_encoder_folder, tmp_path, pixels):
    encoder = Encoder.load(tiny_encoder_folder)
    same = save_encoder(encoder.model, tiny_encoder_folder, str(tmp_path / "same"))
    with torch.no_grad():
        encoder.model.text_projection.mul_(1.5)
    other = save_encoder(encoder.model, tiny_encoder_folder, str(tmp_path / "other"))
    loaded = Encoder.load(str(tmp_path / "other"))
    assert same == Encoder.load(tiny_encoder_folder).fingerprint != other == loaded.fingerprint
    assert loaded.image_fingerprint == Encoder.load(tiny_encoder_folder).image_fingerprint
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["other", "same"]


def test_saving_never_overwrites_another_encoder(tiny_encoder_folder, tmp_path):
    encoder = Encoder.load(tiny_encoder_folder)
    target = str(tmp_path / "encoder")
    assert save_encoder(encoder.model, tiny_encoder_folder, target) == encoder.fingerprint
    assert save_encoder(encoder.model, tiny_encoder_folder, target) == encoder.fingerprint
    with torch.no_grad():
        encoder.model.text_projection.mul_(2)
    with pytest.raises(UserError, match="another encoder"):
        save_encoder(encoder.model, tiny_encoder_folder, target)


def change_config(folder: Path, section: str, values: dict) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config[section].update(values)
    path.write_text(json.dumps(config))


def change_weights(folder: Path, **changes: torch.Tensor) -> None:
    path = folder / WEIGHTS_NAME
    save_file(load_file(path) | changes, path)


DAMAGES = {
    "weights truncated": lambda folder: os.truncate(folder / WEIGHTS_NAME, 1000),
    "weights empty": lambda folder: os.truncate(folder / WEIGHTS_NAME, 0),
    "weights missing": lambda folder: (folder / WEIGHTS_NAME).unlink(),
    "weights NaN": lambda folder: change_weights(folder, text_projection=torch.full((32, 32), torch.nan)),
    "weights infinite": lambda folder: change_weights(
        folder, text_projection=torch.full((32, 32), torch.inf)
    ),
    "weights zero": lambda folder: change_weights(folder, text_projection=torch.zeros(32, 32)),
    "weights of another shape": lambda folder: change_weights(folder, text_projection=torch.zeros(3, 3)),
    "weights of another model": lambda folder: change_weights(folder, more=torch.zeros(3)),
    "logit_scale too large": lambda folder: change_weights(folder, logit_scale=torch.tensor(1000.0)),
    "pickle of a broken file": lambda folder: (folder / WEIGHTS_NAME).rename(
        folder / "open_clip_pytorch_model.bin"
    ),
    "config truncated": lambda folder: os.truncate(folder / "open_clip_config.json", 100),
    "config of no text": lambda folder: (folder / "open_clip_config.json").write_bytes(b"\xff\xfe"),
    "config a list": lambda folder: (folder / "open_clip_config.json").write_text("[]"),
    "config without towers": lambda folder: (folder / "open_clip_config.json").write_text(
        '{"model_cfg": {}, "preprocess_cfg": {}}'
    ),
    "architecture unknown": lambda folder: change_config(
        folder, "model_cfg", {"vision_cfg": {"timm_model_name": "nothing", "image_size": 96}}
    ),
    "embed_dim another": lambda folder: change_config(folder, "model_cfg", {"embed_dim": 64}),
    "embed_dim a text": lambda folder: change_config(folder, "model_cfg", {"embed_dim": "many"}),
    "mean too short": lambda folder: change_config(folder, "preprocess_cfg", {"mean": [0.5]}),
    "std zero": lambda folder: change_config(folder, "preprocess_cfg", {"std": [0.0] * 3}),
    "interpolation unknown": lambda folder: change_config(
        folder, "preprocess_cfg", {"interpolation": "magic"}
    ),
    "tokenizer missing": lambda folder: (folder / "tokenizer.json").unlink(),
    "tokenizer truncated": lambda folder: os.truncate(folder / "tokenizer.json", 1000),
    "tokenizer without padding": lambda folder: (folder / "tokenizer_config.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_encoder_is_refused_in_one_line(damage, tiny_encoder_folder, tmp_path):
    folder = shutil.copytree(tiny_encoder_folder, tmp_path / "damaged")
    DAMAGES[damage](folder)
    with pytest.raises(UserError) as caught:
        Encoder.load(str(folder))
    message = str(caught.value)
    assert str(folder) in message and message.endswith(": restore its files, or name another.")
    assert "\n" not in message and len(message) < 600


def test_hub_model_without_a_connection_is_refused_at_once_and_loaded_from_the_cache(monkeypatch):
    monkeypatch.setattr("actors.encoder.hub.is_reachable", lambda repository: False)
    for model in ("hf-hub:owner/name", "ViT-B-32/openai"):
        with pytest.raises(UserError, match=rf"'{model}' is not in the cache .* hub cannot be reached"):
            Encoder.load(model)
    monkeypatch.setattr("actors.encoder.hub.is_cached", lambda repository, file: True)
    with pytest.raises(UserError, match="cannot be loaded"):
        Encoder.load("hf-hub:owner/name")


def test_registered_encoder_whose_folder_is_gone_names_the_folder(tmp_path):
    record = EncoderRecord(encoder="0" * 16, checkpoint=str(tmp_path / "gone"), dim=32)
    with pytest.raises(UserError, match=rf"The folder {tmp_path}/gone of encoder 0{{16}} does not exist"):
        load_registered(record)


@pytest.mark.parametrize(
    ("model", "precision", "words"),
    [
        ("no/such/folder", "fp32", "is not a folder"),
        ("ViT-B-32", "fp32", "is not a folder"),
        ("tests", "fp32", "open_clip_config.json"),
        ("ViT-B-32/openai", "int4", "fp32, bf16"),
        ("x" * 5000, "fp32", "is not a folder"),
        ("~/no/such/folder", "fp32", "is not a folder"),
        ("tests/file", "fp32", "is not a folder"),
    ],
)
def test_mistakes_are_explained(model, precision, words, tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        Encoder.load(model, precision=precision)


def test_actor_embeds_rows_with_pixels_and_leaves_the_others_null(encoder, pixels, tiny_encoder_folder):
    size = 3 * 96 * 96
    raw = [pixels[0].tobytes(), None, pixels[1].tobytes()]
    batch = pa.table({"name": ["a", "b", "c"], "pixels": pa.array(raw, pa.binary(size))})
    actor = EncodeImages(model=tiny_encoder_folder)
    done = actor(batch)
    assert done.column_names == ["name", "vector"]
    assert done["vector"].type == pa.list_(pa.float32(), encoder.dim)
    assert done["vector"][1].as_py() is None
    found = np.array([done["vector"][0].as_py(), done["vector"][2].as_py()])
    np.testing.assert_allclose(found, encoder.encode_images(pixels[:2]), atol=1e-5)
    nothing = actor(batch.slice(1, 1))
    assert nothing["vector"].type == done["vector"].type and nothing["vector"].null_count == 1


def test_actor_gives_no_vector_for_an_image_whose_vector_is_not_finite(encoder, pixels, tiny_encoder_folder):
    raw = [row.tobytes() for row in pixels[:3]]
    actor = EncodeImages(model=tiny_encoder_folder)
    broken = encoder.encode_images(pixels[:3])
    broken[0, 5], broken[2] = np.nan, 0
    actor.encoder.encode_images = lambda _: broken
    done = actor(pa.table({"pixels": pa.array(raw, pa.binary(3 * 96 * 96))}))
    assert done["vector"].is_valid().to_pylist() == [False, True, False]
    np.testing.assert_array_equal(done["vector"][1].as_py(), broken[1])
