"""Where a trained checkpoint goes: a folder that holds none."""

from pathlib import Path

from cluster.errors import UserError


def check_free(out: str) -> None:
    """Raises UserError when the folder `out` holds weights: those of `models/mini` took hours to train."""
    if any(Path(out).glob("*.safetensors")):
        raise UserError(
            f"the folder {out!r} already holds a checkpoint: name another with --out, or move that one away."
        )
