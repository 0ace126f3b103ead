"""Trains the mini encoder: an open_clip two-tower model, contrastively, on studio scenes and captions.

    kallos pretrain encoder --out runs/pretrain/encoder

The scenes come from a seed stream that no studio folder uses. Half an hour to an hour on two cores. Writes an
open_clip folder with its tokenizer and a model card.
"""

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from lab.pretrain.encoder.config import PretrainEncoderConfig
from lab.pretrain.folder import check_free
from lab.studio.captions import detailed_caption, sample_queries, training_caption, web_caption
from lab.studio.draw import render
from lab.studio.latents import Latents, is_accurate, sample_latents, true_aesthetics

TRAIN_STREAM, HELD_OUT_STREAM = 7001, 7002
PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
CAMERA_JPEG_QUALITY = 92


MODEL_CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {
        "timm_model_name": "resnet10t",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "image_size": 96,
    },
    "text_cfg": {
        "context_length": 48,
        "vocab_size": 1536,
        "width": 192,
        "heads": 3,
        "layers": 4,
        "pool_type": "eos",
        "eos_id": 2,
        "pad_id": 0,
        "hf_tokenizer_name": "kallos/mini",
    },
}
PREPROCESS_CONFIG = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def scene(stream: int, index: int) -> Latents:
    """The index-th scene of a seed stream."""
    return sample_latents(np.random.default_rng((stream, index)))


def _pixels(job: tuple[int, int, int]) -> np.ndarray:
    """One scene as the encoder gets it: drawn, JPEG-compressed, resized; uint8 [size, size, 3]."""
    cv2.setNumThreads(1)
    stream, index, size_px = job
    picture = cv2.imencode(
        ".jpg", render(scene(stream, index))[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, CAMERA_JPEG_QUALITY]
    )
    image = cv2.imdecode(picture[1], cv2.IMREAD_COLOR)[..., ::-1]
    return cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA)


def draw_scenes(stream: int, num: int, size_px: int) -> np.ndarray:
    """uint8 [num, size_px, size_px, 3], drawn by all cores."""
    with ProcessPoolExecutor() as pool:
        jobs = ((stream, index, size_px) for index in range(num))
        return np.stack(list(pool.map(_pixels, jobs, chunksize=64)))


def train_tokenizer(captions: list[str], folder: Path) -> None:
    """A lower-casing byte-level BPE in Hugging Face form; any text can be encoded with it."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MODEL_CONFIG["text_cfg"]["vocab_size"],
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, 1), (EOS, 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS
    ).save_pretrained(folder)


def build_model(folder: Path):
    """An untrained model and its tokenizer, from the folder's own config."""
    import open_clip

    config = {"model_cfg": MODEL_CONFIG, "preprocess_cfg": PREPROCESS_CONFIG}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2))
    name = f"local-dir:{folder}"
    return open_clip.create_model(name, load_weights=False), open_clip.get_tokenizer(name)


def augment(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift by up to four pixels; flips would swap left and right, and colours are what is learnt."""
    dx, dy = rng.integers(-4, 5, 2)
    padded = np.pad(pixels, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge")
    size = pixels.shape[1]
    return padded[:, 4 + dy : 4 + dy + size, 4 + dx : 4 + dx + size]


def train(model, tokenizer, pixels: np.ndarray, latents: list[Latents], config: PretrainEncoderConfig) -> None:
    """Trains in place; bf16 autocast, AdamW, one-cycle schedule over the whole run."""
    import torch
    from torch.nn import functional

    from actors.caption_pairs import contrastive_loss

    rng = np.random.default_rng(config.seed)
    steps_an_epoch = len(pixels) // config.batch_size
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))
    total = steps_an_epoch * config.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=total, pct_start=0.1
    )
    model.train()
    start = time.monotonic()
    for epoch in range(config.epochs):
        losses = []
        captions = [training_caption(scene_latents, rng) for scene_latents in latents]
        for rows in rng.permutation(len(pixels))[: steps_an_epoch * config.batch_size].reshape(
            steps_an_epoch, -1
        ):
            batch = torch.from_numpy(np.ascontiguousarray(augment(pixels[rows], rng).transpose(0, 3, 1, 2)))
            tokens = tokenizer([captions[row] for row in rows])
            with torch.autocast("cpu", torch.bfloat16):
                normalised = ((batch.float() / 255 - 0.5) / 0.25).contiguous(
                    memory_format=torch.channels_last
                )
                images, texts = model.encode_image(normalised), model.encode_text(tokens)
            images, texts = (
                functional.normalize(images.float(), dim=-1),
                functional.normalize(texts.float(), dim=-1),
            )
            loss = contrastive_loss(images, texts, temperature=torch.exp(-model.logit_scale)).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=np.log(100.0))
            losses.append(loss.item())
        minutes = (time.monotonic() - start) / 60
        print(
            f"epoch {epoch + 1}/{config.epochs} loss {np.mean(losses):.3f} "
            f"scale {model.logit_scale.exp().item():.1f} {minutes:.1f} min",
            file=sys.stderr,
            flush=True,
        )
        if minutes > config.max_minutes:
            break
    model.eval()


def measure(folder: Path, config: PretrainEncoderConfig) -> dict[str, float]:
    """Figures on scenes never trained on: caption recall, then precision and true aesthetics of the top five,
    with and without words of quality behind the query (the paper's figure 3)."""
    from actors.caption_pairs import pair_ranks
    from actors.encoder import Encoder

    encoder = Encoder.load(str(folder))
    latents = [scene(HELD_OUT_STREAM, index) for index in range(config.num_held_out)]
    pixels = draw_scenes(HELD_OUT_STREAM, config.num_held_out, encoder.image_size_px).transpose(0, 3, 1, 2)
    images = np.concatenate([encoder.encode_images(pixels[i : i + 256]) for i in range(0, len(pixels), 256)])
    captions = encoder.encode_texts([detailed_caption(scene_latents) for scene_latents in latents])
    ranks = pair_ranks(captions, images)
    figures = {f"recall@{k}": float((ranks <= k).mean()) for k in (1, 5, 10)}
    queries = sample_queries(np.random.default_rng(HELD_OUT_STREAM), 200)
    beauty = np.array([true_aesthetics(scene_latents) for scene_latents in latents])
    for name, suffix in (
        ("plain", ""),
        ("with_quality_words", ", beautiful light, sharp focus, well exposed, vivid colours"),
    ):
        top = np.argsort(-encoder.encode_texts([q + suffix for q in queries]) @ images.T, axis=1)[:, :5]
        fits = np.array(
            [[is_accurate(q, latents[i]) for i in row] for q, row in zip(queries, top, strict=True)]
        )
        figures[f"precision@5_{name}"] = float(fits.mean())
        figures[f"aesthetic@5_{name}"] = float((fits * beauty[top]).mean())
        figures[f"aesthetics_of_accurate_{name}"] = float((fits * beauty[top]).sum() / max(1, fits.sum()))
    return {name: round(value, 4) for name, value in figures.items()}


CARD = """# Kallos mini encoder

An open_clip two-tower encoder (timm `resnet10t` at 96 px, a 4-layer text transformer, 128 dimensions),
trained from scratch on drawings of the Kallos studio and their web-like captions alone. It knows the studio's
words and no others: it is here so that the whole system runs offline, not for photographs.

Trained by `kallos pretrain encoder` with {config}. On {num_held_out} scenes of a seed stream it never saw:

| figure | value |
| --- | --- |
{rows}
"""


def write_card(folder: Path, config: PretrainEncoderConfig, figures: dict[str, float]) -> None:
    """The model card, README.md in the model's folder."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in figures.items())
    told = ", ".join(
        f"`{key}={value}`" for key, value in config.model_dump(exclude={"profile", "store", "out"}).items()
    )
    (folder / "README.md").write_text(CARD.format(config=told, num_held_out=config.num_held_out, rows=rows))


def run(config: PretrainEncoderConfig) -> dict:
    """Draw, train, measure, write; returns the card's figures. Raises UserError when `out` holds a model."""
    import torch
    from safetensors.torch import save_file

    check_free(config.out)
    started = time.monotonic()
    torch.manual_seed(config.seed)
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    latents = [scene(TRAIN_STREAM, index) for index in range(config.num_images)]
    rng = np.random.default_rng(config.seed)
    train_tokenizer([caption(x, rng) for x in latents for caption in (web_caption, training_caption)], folder)
    model, tokenizer = build_model(folder)
    pixels = draw_scenes(TRAIN_STREAM, config.num_images, MODEL_CONFIG["vision_cfg"]["image_size"])
    print(f"drew {len(pixels)} scenes in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    model = model.to(memory_format=torch.channels_last)
    train(model, tokenizer, pixels, latents, config)
    state = {
        name: value.contiguous(memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }
    save_file(state, folder / "open_clip_model.safetensors")
    figures = measure(folder, config)
    write_card(folder, config, figures)
    return {"encoder": str(folder), "figures": figures, "seconds": round(time.monotonic() - started, 1)}
