"""Checks the folders of checkpoints before hours of training."""

from pathlib import Path

from actors.engine import check_files
from cluster.command import output_folder
from cluster.errors import UserError, shown


def check_free(out: str) -> None:
    """Raise UserError when the folder holds weights, which took hours to train, or cannot be written."""
    if any(Path(out).glob("*.safetensors")):
        raise UserError(
            f"The folder {out!r} already holds a checkpoint: name another with --out, or move that one away."
        )
    output_folder(out)


def check_checkpoint(folder: str) -> None:
    """Raise UserError when the folder holds no model in Hugging Face form, or a damaged one."""
    if not Path(folder, "config.json").is_file():
        raise UserError(f"The folder {shown(folder)} holds no checkpoint with a config.json: give another.")
    check_files(folder)
