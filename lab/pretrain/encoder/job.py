"""Trains the mini encoder: an open_clip two-tower model, contrastively, on studio scenes and captions.

    kallos pretrain encoder --out runs/pretrain/encoder

Output: an open_clip folder with its tokenizer and a model card. Takes half an hour to an hour on two cores.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from actors.caption_pairs import contrastive_loss
from cluster import terminal
from lab.pretrain.encoder.config import PretrainEncoderConfig
from lab.pretrain.encoder.evaluation import measure, write_card
from lab.pretrain.encoder.model import IMAGE_PX, PIXEL_MEAN, PIXEL_STD, make_model, train_tokenizer
from lab.pretrain.encoder.scenes import TRAIN_STREAM, draw_scenes, scene, shifted
from lab.pretrain.folder import check_free
from lab.studio.captions import training_caption, web_caption
from lab.studio.latents import Latents

MAX_LOGIT_SCALE = 100.0


def make_optimizer(
    model: Any, config: PretrainEncoderConfig, num_steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.OneCycleLR]:
    """AdamW with decay on matrices only, and its one-cycle schedule over all steps."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=num_steps, pct_start=0.1
    )
    return optimizer, schedule


def batch_loss(model: Any, pixels: np.ndarray, tokens: Tensor) -> Tensor:
    """Mean contrastive loss of uint8 [B, H, W, 3] images and their captions, under bf16 autocast."""
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    with torch.autocast("cpu", torch.bfloat16):
        normalised = ((images.float() / 255 - PIXEL_MEAN) / PIXEL_STD).contiguous(
            memory_format=torch.channels_last
        )
        features = model.encode_image(normalised), model.encode_text(tokens)
    image_vectors, text_vectors = (functional.normalize(part.float(), dim=-1) for part in features)
    temperature = torch.exp(-model.logit_scale)
    return contrastive_loss(image_vectors, text_vectors, temperature=temperature).mean()


def train(
    model: Any, tokenizer: Any, pixels: np.ndarray, latents: list[Latents], config: PretrainEncoderConfig
) -> None:
    """Train in place, until the last epoch or the time limit."""
    rng = np.random.default_rng(config.seed)
    steps_per_epoch = len(pixels) // config.batch_size
    optimizer, schedule = make_optimizer(model, config, steps_per_epoch * config.epochs)
    model.train()
    start = time.monotonic()
    for epoch in range(config.epochs):
        losses = []
        captions = [training_caption(scene_latents, rng) for scene_latents in latents]
        order = rng.permutation(len(pixels))[: steps_per_epoch * config.batch_size]
        for rows in order.reshape(steps_per_epoch, -1):
            batch = shifted(pixels[rows], rng)
            loss = batch_loss(model, batch, tokenizer([captions[row] for row in rows]))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=np.log(MAX_LOGIT_SCALE))
            losses.append(loss.item())
        minutes = (time.monotonic() - start) / 60
        scale = model.logit_scale.exp().item()
        means = f"loss {np.mean(losses):.3f} scale {scale:.1f}"
        terminal.say(f"epoch {epoch + 1}/{config.epochs} {means} {minutes:.1f} min")
        if minutes > config.max_minutes:
            break
    model.eval()


def run(config: PretrainEncoderConfig) -> dict:
    """Draw, train, measure, write; returns the figures of the model card.

    Raises UserError when `out` holds a checkpoint.
    """
    check_free(config.out)
    started = time.monotonic()
    torch.manual_seed(config.seed)
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    latents = [scene(TRAIN_STREAM, index) for index in range(config.num_images)]
    rng = np.random.default_rng(config.seed)
    train_tokenizer([caption(x, rng) for x in latents for caption in (web_caption, training_caption)], folder)
    model, tokenizer = make_model(folder)
    pixels = draw_scenes(TRAIN_STREAM, config.num_images, IMAGE_PX)
    terminal.say(f"drew {len(pixels)} scenes in {time.monotonic() - started:.0f} s")
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
