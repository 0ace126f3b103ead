"""Trains the mini judge: a small Qwen2.5-VL model that rates and compares studio scenes.

Input: the studio alone. Output: a folder that vLLM and transformers load (config, bfloat16 safetensors,
tokenizer, processor), a model card with figures measured through vLLM on held-out scenes, and
`resolved_config.yaml`.

    kallos pretrain judge --out runs/pretrain/judge

Training has three stages. First the vision tower alone learns to name the latents, with auxiliary heads
(dropped after training) and with the language model's own words; this is many times faster than learning
through the answers. Then the language model learns which words match an image, with the vision tower frozen.
Then everything learns to answer together, with the same heads. A checkpoint is written every few minutes; the
same command continues from it.
"""

import time
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig

from cluster import command
from cluster.errors import UserError
from lab.pretrain.folder import check_checkpoint, check_free
from lab.pretrain.judge.card import write_card
from lab.pretrain.judge.config import PretrainJudgeConfig
from lab.pretrain.judge.evaluation import measure
from lab.pretrain.judge.model import make_processor, save
from lab.pretrain.judge.scenes import make_scenes
from lab.pretrain.judge.trainer import Trainer, train

HELD_OUT_SEED_OFFSET = 1_000_003


def check_init(folder: str, text_width: int) -> None:
    """Raise UserError when the folder holds no judge, or one of another width."""
    check_checkpoint(folder)
    config: Any = Qwen2_5_VLConfig.from_pretrained(folder)
    width = config.text_config.hidden_size
    if width != text_width:
        raise UserError(f"The judge in {folder!r} has the width {width}: give --text-width {width}.")


def run(config: PretrainJudgeConfig) -> dict:
    """Draw, train, save, measure. Returns {"model", "parameters_m", "seconds", "figures"}.

    Raises UserError when `out` holds a checkpoint, or `init` holds none of this width.
    """
    check_free(config.out)
    command.output_folder(config.work)
    if config.init:
        check_init(config.init, config.text_width)
    torch.set_num_threads(config.num_threads)
    work, started = Path(config.work), time.monotonic()
    scenes = make_scenes(config.num_scenes, config.seed, work, config.num_threads)
    held_out = make_scenes(config.num_heldout, config.seed + HELD_OUT_SEED_OFFSET, work, config.num_threads)
    trainer = Trainer(config)
    trainer.load_checkpoint(work / "checkpoint.pt")
    train(trainer, scenes, work / "checkpoint.pt")
    folder = save(trainer.model, make_processor(trainer.tokenizer), config.out)
    command.save_config(config, folder)
    seconds = time.monotonic() - started
    parameters_m = sum(parameter.numel() for parameter in trainer.model.parameters()) / 1e6
    figures = measure(folder, held_out, config.seed)
    write_card(folder, config, parameters_m=parameters_m, seconds=seconds, figures=figures)
    return {"model": str(folder), "parameters_m": parameters_m, "seconds": seconds, "figures": figures}
