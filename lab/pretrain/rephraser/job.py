"""Trains the mini rephraser, the small language model that rephrases queries, on two CPU cores.

    kallos pretrain rephraser --out runs/pretrain/rephraser
    kallos pretrain rephraser --measure models/mini/rephraser

Synthetic chats (`training_chats.py`: the prompts of `actors/rephraser.py`, answered with the studio's
phrases) -> a byte-level BPE and a Qwen2-architecture causal model in Hugging Face format, with a model card.
Only the tokens of the answers count in the loss. Training is seeded: the same config gives the same
checkpoint on the same machine. The second command does not train: it measures a checkpoint and updates the
figures in its model card.
"""

import time
from pathlib import Path

import torch
import yaml
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

from cluster import command
from cluster.errors import UserError
from lab.pretrain.folder import check_checkpoint, check_free
from lab.pretrain.rephraser.card import check_card, figures_text, rewrite_figures, write_card
from lab.pretrain.rephraser.config import PretrainRephraserConfig
from lab.pretrain.rephraser.evaluation import Evaluation, measure
from lab.pretrain.rephraser.evaluation_queries import KINDS, normalised, untrained_queries
from lab.pretrain.rephraser.trainer import CHATS_SEED_OFFSET, initial_model, train
from lab.pretrain.rephraser.training_batches import trained_queries


def save(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, config: PretrainRephraserConfig
) -> None:
    """Write weights in bf16, the tokenizer with its chat template, and the resolved config."""
    model.bfloat16().save_pretrained(config.out)
    tokenizer.save_pretrained(config.out)
    command.save_config(config, config.out)


def queries_trained_on(folder: str | Path) -> set[str]:
    """Every query, normalised, on which the checkpoint in the folder was trained.

    The queries are drawn again from `resolved_config.yaml`. Those of the checkpoint from which it continued
    are included if that one still exists. Raises UserError when the folder has no resolved config.
    """
    path = Path(folder) / "resolved_config.yaml"
    if not path.exists():
        raise UserError(f"the folder {str(folder)!r} holds no checkpoint with a resolved_config.yaml.")
    config = PretrainRephraserConfig(**yaml.safe_load(path.read_text(encoding="utf-8")))
    texts = trained_queries(
        num_steps=config.num_steps, batch_size=config.batch_size, seed=config.seed + CHATS_SEED_OFFSET
    )
    has_parent = config.init and Path(config.init, path.name).exists()
    of_parent = queries_trained_on(config.init) if config.init and has_parent else set()
    return {normalised(text) for text in texts} | of_parent


def measure_and_describe(folder: str | Path, config: PretrainRephraserConfig) -> tuple[Evaluation, str]:
    """The evaluation of the checkpoint in the folder, and the text of its model card about it."""
    evaluation = measure(
        folder, num_queries=config.num_eval_queries, seed=config.seed, trained=queries_trained_on(folder)
    )
    return evaluation, figures_text(evaluation, num_queries=config.num_eval_queries, seed=config.seed)


def check_eval_queries(config: PretrainRephraserConfig) -> None:
    """Raise UserError when a kind has fewer queries than are to be evaluated."""
    try:
        for kind in KINDS:
            untrained_queries(kind, config.num_eval_queries, config.seed, frozenset())
    except ValueError as error:
        raise UserError(
            f"num_eval_queries={config.num_eval_queries} is too many ({error}): give fewer."
        ) from None


def run(config: PretrainRephraserConfig) -> dict:
    """Train, save and measure; or only measure, with `config.measure`.

    Raises UserError when `out` already holds a checkpoint, or when the folder to measure holds none.
    """
    check_eval_queries(config)
    if config.measure:
        check_card(config.measure)
        evaluation, figures = measure_and_describe(config.measure, config)
        rewrite_figures(config.measure, figures)
        return {"measured": config.measure, "evaluation": evaluation}
    check_free(config.out)
    if config.init:
        check_checkpoint(config.init)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    # Processor time: elapsed time on a busy machine does not show what training costs.
    started = time.process_time()
    tokenizer, model = initial_model(config)
    loss = train(model, tokenizer, config)
    seconds = time.process_time() - started
    num_parameters = sum(weight.numel() for weight in model.parameters())
    save(model, tokenizer, config)
    evaluation, figures = measure_and_describe(config.out, config)
    facts = {"num_parameters": f"{num_parameters:,}", "loss": f"{loss:.3f}", "seconds": f"{seconds:.0f}"}
    write_card(config.out, {**config.model_dump(), **facts}, figures)
    return {
        "out": config.out,
        "num_parameters": num_parameters,
        "loss": loss,
        "seconds": seconds,
        "evaluation": evaluation,
    }
