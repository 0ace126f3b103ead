"""Protects finished checkpoints from being overwritten."""

from pathlib import Path

from cluster.errors import UserError


def check_free(out: str) -> None:
    """Raise UserError when the folder `out` holds weights: those of `models/mini` took hours to train."""
    if any(Path(out).glob("*.safetensors")):
        raise UserError(
            f"The folder {out!r} already holds a checkpoint: name another with --out, or move that one away."
        )
